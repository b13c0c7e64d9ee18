"""What a container's health check says."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from opscenter import health


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    def ask(role: str) -> int:
        monkeypatch.setattr("sys.argv", ["health", role])
        return health.main()

    return ask


def test_beat_is_healthy_while_it_writes_its_schedule(says: Any, data_folder: Path) -> None:
    assert says("beat") == 1
    schedule = data_folder / "run/beat-schedule"
    schedule.parent.mkdir()
    schedule.touch()
    assert says("beat") == 0
    long_ago = time.time() - 2 * health.BEAT_SILENCE_SECONDS
    os.utime(schedule, (long_ago, long_ago))
    assert says("beat") == 1


def test_web_without_an_answer_is_not_healthy(says: Any, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings.PORT = probe.getsockname()[1]
    assert says("web") == 1
    assert "web:" in capsys.readouterr().err
