"""The embedded default: one command that keeps web, worker and beat running on this machine.

The work is supervisord's; here is what it is told, and what is looked at before it starts.
"""

import fcntl
import os
import shlex
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from django.conf import settings

from opscenter import roles

# Processes of a center that was killed a moment ago are still on their way out.
LOCK_WAIT_SECONDS = 5.0

SUPERVISORD = """\
[supervisord]
nodaemon = true
logfile = /dev/null
logfile_maxbytes = 0
pidfile = {run}/supervisord.pid
minfds = 256
minprocs = 16
umask = 077
{user}
"""
# A killed child comes back after one second, one that keeps failing after two, three, …
# Stopping reaches the whole process group: granian's worker and whatever a task has started.
GROUP = """
[group:center]
programs = {roles}
"""
PROGRAM = """
[program:{role}]
command = {command}
directory = {root}
startsecs = 2
startretries = 1000000
autorestart = true
stopsignal = TERM
stopwaitsecs = 8
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = /dev/fd/1
stdout_logfile_maxbytes = 0
"""


class CannotStart(Exception):
    """Something on this machine is in the way; the message says what, and what to do."""


def check_machine() -> None:
    """Raises `CannotStart` unless the assets are there and nobody else has the data folder and the port."""
    if not (settings.STATIC_ROOT / "staticfiles.json").exists():
        raise CannotStart(f"The pages' assets are not in {settings.STATIC_ROOT}: run `make setup`.")
    _check_data_folder()
    _check_port()


def _check_data_folder() -> None:
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            os.close(roles.beat_lock(wait=False))
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                raise CannotStart(
                    f"Another center works in {settings.DATA}: stop it, or set OPSCENTER_DATA to another folder."
                ) from exc
            time.sleep(0.2)
        except OSError as exc:
            raise CannotStart(
                f"The data folder {settings.DATA} cannot be written ({exc.strerror}): set OPSCENTER_DATA."
            ) from exc
        else:
            return


def _check_port() -> None:
    """By binding it as nobody else may: granian shares its port, and would share it with a stranger too."""
    address = (settings.BIND, settings.PORT)
    with socket.socket(socket.AF_INET6 if ":" in settings.BIND else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as exc:
            raise CannotStart(
                f"Port {settings.PORT} on {settings.BIND} cannot be used ({exc.strerror}): set PORT to a free one."
            ) from exc


def configuration() -> str:
    """supervisord's configuration file."""
    user = f"user = {os.getuid()}" if os.getuid() == 0 else ""  # it warns about root unless told so
    # One group, because groups are stopped one after another.
    sections = [SUPERVISORD.format(run=settings.DATA / "run", user=user), GROUP.format(roles=",".join(roles.SERVING))]
    for role in roles.SERVING:
        command = shlex.join([sys.executable, "-m", "opscenter.roles", "--with-parent", role])
        sections.append(PROGRAM.format(role=role, command=command, root=roles.ROOT))
    return "".join(sections).replace("%", "%%")  # a path may hold one, and supervisord expands it


def become_supervisor() -> None:
    """Writes the configuration and turns this process into supervisord."""
    path = Path(settings.DATA) / "run/supervisord.conf"
    path.write_text(configuration(), encoding="utf-8")
    _make_output_reopenable()
    os.execv(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(path)])


def _make_output_reopenable() -> None:
    """supervisord opens /dev/fd/1 again for each child, which overwrites in a file and fails for a socket."""
    mode = os.fstat(1).st_mode
    if stat.S_ISREG(mode):
        fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)
    elif stat.S_ISSOCK(mode):
        # In its own session, so that Ctrl-C leaves it until the last line is through.
        relay = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
        assert relay.stdin is not None
        os.dup2(relay.stdin.fileno(), 1)
        os.dup2(relay.stdin.fileno(), 2)
