"""The engine's command, run once on a pipeline in a folder of its own, within bounds.

The process has none of the center's environment, a few seconds, and limited memory; it is killed with all it started.
Python steps are code that people uploaded: they are not run here (see `operations`).
"""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from catalog import storage
from common.errors import StorageFull, TooLarge
from publishing.artifact import FILE_PATH
from publishing.oci.content import Blob
from publishing.oci.packages import Package
from trials.errors import RequestRefused, TrialFailed, TrialsBusy

LARGEST_ANSWER = 8 * 1024**2
MEMORY = 2 * 1024**3  # bytes of data of the process, beside three times the models: loaded, optimised, at work
FILES = 256
REFUSED = 3  # the engine's exit code
LEFT_SECONDS = 3600.0  # a folder older than this was left by a killed process
SAID = "opsengine: "  # before what the engine says to people
LONGEST = 1000  # characters of it
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
BUSY_SECONDS = 5


def infer(package: Package, body: bytes, content_type: str) -> bytes:
    """What the pipeline answers, as pandas records in JSON.

    Raises `RequestRefused`, `TrialFailed`, `TrialsBusy`, `TooLarge` for the answer, `StorageFull`.
    """
    root = settings.DATA / "trials"
    root.mkdir(parents=True, exist_ok=True)
    with _turn(root):
        _sweep(root)
        with tempfile.TemporaryDirectory(dir=root, prefix="run-") as name:
            folder = Path(name)
            try:
                _lay_out(package, folder / "pipeline")
                (folder / "request").write_bytes(body)
            except OSError as exc:
                raise StorageFull(
                    _("There is no room to try a pipeline here (%(reason)s): free some space.")
                    % {"reason": exc.strerror}
                ) from exc
            return _run(folder, content_type, MEMORY + 3 * package.size)


@contextlib.contextmanager
def _turn(root: Path) -> Iterator[None]:
    """One of the machine's few places. The lock goes with the process, however that ends."""
    for number in range(settings.TRIALS_AT_ONCE):
        with (root / f"turn-{number}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield
            return
    raise TrialsBusy(_("Other requests are being tried: try again in a moment."), retry_after=BUSY_SECONDS)


def _sweep(root: Path) -> None:
    for folder in root.glob("run-*"):
        with contextlib.suppress(FileNotFoundError):  # another process ended or swept it
            if folder.stat().st_mtime < time.time() - LEFT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _lay_out(package: Package, folder: Path) -> None:
    """The files of the artifact at their paths, as an engine reads them from a folder (PIPELINE_DIR)."""
    folder.mkdir()
    (folder / "manifest.json").write_bytes(package.manifest.content)
    for blob in package.blobs:
        relative = blob.annotations.get(FILE_PATH)
        if relative is None:  # the artifact's config, which engines do not read
            continue
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        _place(blob, path)


def _place(blob: Blob, path: Path) -> None:
    """A model file is linked, where that can be: it may be gigabytes. It never changes."""
    with contextlib.suppress(OSError):
        os.link(storage.path_of(blob.digest.removeprefix("sha256:")), path)
        return
    with contextlib.closing(blob.open()) as source, path.open("wb") as target:
        while piece := source.read(1 << 20):
            target.write(piece)


def _run(folder: Path, content_type: str, memory: int) -> bytes:
    command = [*settings.ENGINE_COMMAND, "infer", "--type", content_type, "pipeline", "request"]
    answer, said = folder / "answer", folder / "said"
    with answer.open("wb") as out, said.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
        _limit(process.pid, memory)
        try:
            code = process.wait(settings.TRIAL_SECONDS)
        except subprocess.TimeoutExpired:
            raise TrialFailed(
                _("The pipeline did not answer within %(trial_seconds)s seconds: try fewer rows.")
                % {"trial_seconds": settings.TRIAL_SECONDS}
            ) from None
        finally:
            _end(process)
    if code == 0:
        return answer.read_bytes()
    if answer.stat().st_size >= LARGEST_ANSWER:
        raise TooLarge(
            _("The answer has more than %(largest_answer)s bytes: try fewer rows.")
            % {"largest_answer": LARGEST_ANSWER},
            limit=LARGEST_ANSWER,
        )
    raise _failure(code, _told(said))


def _environment(folder: Path) -> dict[str, str]:
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    ours = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = {"PYTHONPATH": settings.ENGINE_PATH} if settings.ENGINE_PATH else {}
    return {**ours, **single, **path, "HOME": str(folder), "TMPDIR": str(folder)}


def _limit(pid: int, memory: int) -> None:
    """From outside, because code between fork and exec is not safe in a process with threads."""
    if not hasattr(resource, "prlimit"):  # Linux has it
        return
    limits = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_CPU: 2 * settings.TRIAL_SECONDS,
        resource.RLIMIT_FSIZE: LARGEST_ANSWER,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_CORE: 0,
    }
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        for kind, most in limits.items():
            resource.prlimit(pid, kind, (most, most))


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _told(said: Path) -> str:
    """The last thing that the engine said to people; empty for none."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - 64 * 1024))
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line.removeprefix(SAID) for line in lines if line.startswith(SAID)]
    return told[-1][:LONGEST] if told else ""


def _failure(code: int, told: str) -> RequestRefused | TrialFailed:
    if code == REFUSED:
        return RequestRefused(told or _("The pipeline refused the request."))
    if told:
        return TrialFailed(told)
    return TrialFailed(
        _("The pipeline took more memory or time than a trial may, or ended the engine: try fewer rows.")
    )
