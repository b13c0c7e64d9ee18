"""What `manage.py run` looks at before it starts, and what it tells supervisord."""

import configparser
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opscenter import roles, supervisor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def free_machine(settings: Any, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "staticfiles.json").touch()
    settings.BIND = "127.0.0.1"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings.PORT = probe.getsockname()[1]


@pytest.fixture
def taken_port() -> Iterator[int]:
    """As granian takes it: shared with whoever asks."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_free_machine_is_fine() -> None:
    supervisor.check_machine()


def test_taken_port_is_refused_even_when_it_is_shared(settings: Any, taken_port: int) -> None:
    settings.PORT = taken_port
    with pytest.raises(supervisor.CannotStart, match=rf"Port {taken_port} .*set PORT to a free one"):
        supervisor.check_machine()


def test_uncollected_assets_are_refused(settings: Any) -> None:
    (settings.STATIC_ROOT / "staticfiles.json").unlink()
    with pytest.raises(supervisor.CannotStart, match="make setup"):
        supervisor.check_machine()


def test_second_center_on_a_data_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOCK_WAIT_SECONDS", 0.3)
    held = roles.beat_lock(wait=False)
    try:
        with pytest.raises(supervisor.CannotStart, match="Another center works in"):
            supervisor.check_machine()
    finally:
        os.close(held)
    supervisor.check_machine()


def test_unwritable_data_folder_is_refused(settings: Any) -> None:
    settings.DATA = Path("/proc/nowhere")  # not even root can write there
    with pytest.raises(supervisor.CannotStart, match=r"cannot be written .*OPSCENTER_DATA"):
        supervisor.check_machine()


def test_supervisord_restarts_every_role_and_reads_odd_paths(settings: Any, tmp_path: Path) -> None:
    settings.DATA = tmp_path / "100% mine"
    parser = configparser.ConfigParser()
    parser.read_string(supervisor.configuration())
    assert parser["supervisord"]["pidfile"] == str(tmp_path / "100% mine/run/supervisord.pid")
    assert parser["group:center"]["programs"] == "web,worker,beat"
    for role in ("web", "worker", "beat"):
        program = parser[f"program:{role}"]
        assert program["command"].endswith(f"-m opscenter.roles --with-parent {role}")
        assert program["autorestart"] == "true"


def test_worker_forks_only_with_a_real_broker(settings: Any) -> None:
    settings.REDIS_URL = ""
    assert "threads" in roles.command("worker")
    settings.REDIS_URL = "redis://redis:6379/0"
    assert "prefork" in roles.command("worker")


@pytest.mark.parametrize("role", ["web", "worker", "beat", "bootstrap", "run"])
def test_wrong_setting_is_one_line_for_every_role(role: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "OPSCENTER_DATA": str(tmp_path), "OCI_REGISTRY": "https://ghcr.io"}
    done = subprocess.run(
        [sys.executable, "-m", "opscenter.roles", role], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "opscenter: OCI_REGISTRY=https://ghcr.io has a scheme or a path. Use host[:port], OCI_REPOSITORY for the path "
        "and OCI_PLAIN_HTTP=true for a registry without TLS. (opscenter.E009)"
    ]
