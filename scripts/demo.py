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

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 90  # a small machine that compiles everything for the first time
STOP_SECONDS = 15


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
        with center(data, port) as (process, log):
            email, password = credentials(data)
            verdict = do_main_job(url, email, password)
            if verdict:
                print(f"The demo failed. What the center wrote: {log}", file=sys.stderr)
            print(f"\nDashboard: {url}/\nLog in as: {email}\nPassword:  {password}", flush=True)
            if not once:
                print("The center stays up until Ctrl-C.", flush=True)
                process.wait()
                print(f"The center ended by itself: see {log}", file=sys.stderr)
                return 1
            return verdict
    except Failed as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", flush=True)
        return 0 if not once else 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def center(data: Path, port: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A ready center, and the file that holds its output. Raises `Failed`, with its own words when it refuses."""
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
        yield process, log
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


def credentials(data: Path) -> tuple[str, str]:
    """The administrator's. Raises `Failed` when nobody told us the password."""
    email = os.environ.get("OPSCENTER_ADMIN_EMAIL") or "admin@example.com"
    kept = data / "secrets/admin.password"
    password = os.environ.get("OPSCENTER_ADMIN_PASSWORD") or (kept.read_text().strip() if kept.exists() else "")
    if not password:
        raise Failed(f"opscenter: the administrator of {data} has your own password: set OPSCENTER_ADMIN_PASSWORD.")
    return email, password


def do_main_job(url: str, email: str, password: str) -> int:
    """Runs `examples/demo.py` against the center; its exit code."""
    environment = os.environ | {
        "OPSCENTER_URL": url,
        "OPSCENTER_ADMIN_EMAIL": email,
        "OPSCENTER_ADMIN_PASSWORD": password,
    }
    process = subprocess.Popen([sys.executable, str(ROOT / "examples/demo.py")], cwd=ROOT, env=environment)
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
