"""Starts a center, lets `examples/demo.py` do the main job on it, and stays up until Ctrl-C.

ONCE=1 ends with the verdict.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from opscenter import lifetime

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 90  # a small machine that compiles everything for the first time
STOP_SECONDS = 15
LOGIN = "\n  Dashboard: {OPSCENTER_URL}/\n  Log in as: {OPSCENTER_ADMIN_EMAIL}\n  Password:  {OPSCENTER_ADMIN_PASSWORD}"


class Failed(Exception):
    """The center did not start; the message says why."""


def main() -> int:
    """The demo's verdict: 0 when the main job's result was checked."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    once = os.environ.get("ONCE", "") not in {"", "0", "no", "false"}
    port = os.environ.get("PORT") or "8000"
    data = Path(os.environ.get("OPSCENTER_DATA") or ROOT / "var").resolve()
    url = os.environ.get("OPSCENTER_PUBLIC_URL") or f"http://127.0.0.1:{port}"
    try:
        with center(data, port) as log:
            environment = job_environment(data, url)
            verdict = do_main_job(environment, stay=not once)
            if verdict:
                print(f"The demo failed. What the center wrote: {log}", file=sys.stderr)
            elif once:
                print(LOGIN.format(**environment), flush=True)
            return verdict
    except Failed as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 130 if once else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def center(data: Path, port: str) -> Iterator[Path]:
    """A ready center; gives the file that holds its output. Raises `Failed`, with its own words when it refuses."""
    log = data / "log/center.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as exc:
        raise Failed(f"opscenter: {exc.filename} cannot be written ({exc.strerror}): set OPSCENTER_DATA.") from exc
    command = [sys.executable, "-m", "opscenter.roles", "--with-parent", "run"]
    # In a session of its own: Ctrl-C reaches us only, and we stop it when the job on it has stopped.
    with output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_ready(process, data / "run/supervisord.pid", f"http://127.0.0.1:{port}/readyz", log)
        yield log
    finally:
        stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], pid_file: Path, url: str, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(_last_words(log))
        # Until then the port may be a stranger's, which the center is about to refuse.
        if pid_file.exists() and pid_file.read_text().strip() == str(process.pid):
            try:
                with direct.open(url, timeout=5):
                    return
            except OSError:
                pass
        time.sleep(0.1)
    raise Failed(f"opscenter: the center is not ready after {READY_SECONDS} s: see {log}")


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    refusals = [line for line in lines if line.startswith("opscenter: ")]
    return "\n".join(refusals) or f"opscenter: the center ended while it started: see {log}"


def job_environment(data: Path, url: str) -> dict[str, str]:
    """What the main job must know: the administrator's login, and the registry's for the engine. Raises `Failed`."""
    password = os.environ.get("OPSCENTER_ADMIN_PASSWORD") or _kept(data / "secrets/admin.password")
    if not password:
        raise Failed(f"opscenter: the administrator of {data} has your own password: set OPSCENTER_ADMIN_PASSWORD.")
    built_in = {
        "OCI_REGISTRY": urlsplit(url).netloc,
        "OCI_USERNAME": "opscenter",
        "OCI_PASSWORD": os.environ.get("OPSCENTER_REGISTRY_PASSWORD") or _kept(data / "secrets/registry.password"),
    }
    center = {
        "OPSCENTER_URL": url,
        "OPSCENTER_ADMIN_EMAIL": os.environ.get("OPSCENTER_ADMIN_EMAIL") or "admin@example.com",
        "OPSCENTER_ADMIN_PASSWORD": password,
        "OPSCENTER_DATA": str(data),
    }
    return ({} if os.environ.get("OCI_REGISTRY") else built_in) | center


def _kept(file: Path) -> str:
    return file.read_text(encoding="ascii").strip() if file.exists() else ""


def do_main_job(environment: dict[str, str], *, stay: bool) -> int:
    """Runs `examples/demo.py` against the center; its exit code. With `stay` it prints the login itself and waits."""
    command = [sys.executable, str(ROOT / "examples/demo.py"), *(["--stay"] if stay else [])]
    # In a session of its own, as the center: we pass Ctrl-C on, and the job stops the engine it started.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,
        preexec_fn=lifetime.end_with_parent,
    )
    try:
        return process.wait()
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and makes it after `STOP_SECONDS`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
