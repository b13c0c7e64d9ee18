"""The processes that a center is made of, and the command line of each: `python -m opscenter.roles web`.

The embedded default, the container image and the tests all start them from here, so that they cannot differ.
"""

import argparse
import fcntl
import os
import sys
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from opscenter import checks, lifetime

SERVING = ("web", "worker", "beat")
ROLES = (*SERVING, "bootstrap", "run")
ROOT = Path(__file__).resolve().parent.parent


def command(role: str) -> list[str]:
    """The program and arguments of a role, by the settings."""
    if role == "web":
        return _python("granian", *_granian_options(), "opscenter.wsgi:application")
    if role == "worker":
        # Threads where one machine does everything: one process, and kill -9 leaves no forked child at work.
        pool = "prefork" if settings.REDIS_URL else "threads"
        options = ["--without-gossip", "--without-mingle", "--pool", pool]
        return _celery("worker", *options, "--concurrency", str(settings.WORKER_CONCURRENCY))
    if role == "beat":
        return _celery("beat", "--pidfile=", "--schedule", str(settings.DATA / "run/beat-schedule"))
    return [sys.executable, str(ROOT / "manage.py"), role]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _celery(*arguments: str) -> list[str]:
    # Who starts a center as root meant to.
    quiet = ["-W", "ignore:You're running the worker with superuser privileges"]
    return [sys.executable, *quiet, "-m", "celery", "--quiet", "--app", "opscenter", *arguments]


def _granian_options() -> list[str]:
    options = {
        "--interface": "wsgi",
        "--host": settings.BIND,
        "--port": settings.PORT,
        "--workers": 1,
        "--blocking-threads": settings.WEB_THREADS,
        "--backlog": 1024,
        "--workers-kill-timeout": 5,
        "--log-level": "error",  # it warns of threads that wait for a database, and tells of every start
        "--log-config": ROOT / "opscenter/granian-log.json",
    }
    return [*(str(word) for option in options.items() for word in option), "--no-ws", "--no-access-log"]


def beat_lock(*, wait: bool) -> int:
    """Takes the lock that a data folder's one beat holds, and returns its descriptor, which an exec keeps.

    Raises `BlockingIOError` when another process holds it and `wait` is false.
    """
    path = settings.DATA / "run/beat.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def prepare(role: str) -> None:
    """Refuses wrong settings by `SystemExit`, one line each; a beat waits for its turn."""
    try:
        refusals = checks.refusals() if role in SERVING else []  # the commands check by themselves
    except ImproperlyConfigured as exc:
        sys.exit(f"opscenter: {exc}")
    if refusals:
        sys.exit("\n".join(refusals))
    if role == "beat":
        beat_lock(wait=True)


def main() -> None:
    """Becomes the role's program."""
    parser = argparse.ArgumentParser(prog="python -m opscenter.roles", description=__doc__)
    parser.add_argument("--with-parent", action="store_true", help="end when the process that starts it ends")
    parser.add_argument("role", choices=ROLES)
    arguments = parser.parse_args()
    if arguments.with_parent:
        lifetime.end_with_parent()
    os.environ["OPSCENTER_ROLE"] = arguments.role
    os.chdir(ROOT)
    prepare(arguments.role)
    words = command(arguments.role)
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
