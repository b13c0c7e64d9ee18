"""That an engine ends in less than the ten seconds between SIGTERM and SIGKILL, whatever hangs."""

import os
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from engine.tests.conftest import eventually
from engine.tests.test_limits import serve  # noqa: F401
from opsengine import engine, server
from opsengine.engine import Engine
from opsengine.errors import InUse

DOCKER_SECONDS = 10.0  # `docker stop`, and Kubernetes leaves more


class Parts:
    """An engine's parts, which note how long they may take. `stuck` is the one that waits for a disk."""

    def __init__(self, stuck, folder):
        self.told, self.go, self._stuck = [], threading.Event(), stuck
        made = self.engine = Engine.__new__(Engine)
        for name in ("keeper", "server", "agent", "updater", "writer"):
            setattr(made, f"_{name}", SimpleNamespace(stop=self._stop(name)))
        made._agent.shipper = SimpleNamespace(stop=self._stop("shipper"), is_alive=False)
        made._log_store = SimpleNamespace(close=self._stop("store"))
        made._guard, made._fault = engine.lock(folder), None

    def _stop(self, name):
        def stop(seconds=0.0):
            if name == self._stuck:
                self.go.wait(60)
            self.told.append((name, seconds))
            return True

        return stop


@pytest.fixture
def parts(tmp_path):
    made = []

    def make(stuck=None):
        made.append(Parts(stuck, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.go.set()
    eventually(lambda: is_free(tmp_path), 60)


def is_free(folder):
    try:
        os.close(engine.lock(folder))
    except InUse:
        return False
    return True


def test_parts_are_ended_in_their_order_and_have_less_than_ten_seconds_together(parts, tmp_path):
    made = parts()
    made.engine._shut_down()
    assert [name for name, _ in made.told] == ["keeper", "server", "agent", "updater", "writer", "shipper", "store"]
    assert made.engine._fault is None and is_free(tmp_path)
    together = sum(seconds for _, seconds in made.told)
    assert 0 < together + server.LATE_SECONDS <= engine.END_SECONDS < DOCKER_SECONDS


def test_fault_at_the_end_is_told(parts, caplog):
    made = parts()
    made.engine._log_store = None
    made.engine._shut_down()
    assert "AttributeError" in caplog.text and "did not end in order" in made.engine._fault
    os.close(made.engine._guard)


@pytest.mark.parametrize("stuck", ["updater", "writer", "shipper", "store"])
def test_disk_that_takes_nothing_does_not_keep_the_engine_from_ending(parts, monkeypatch, caplog, tmp_path, stuck):
    monkeypatch.setattr(engine, "END_SECONDS", 0.0)  # what it waits for is not there, so it need not be waited for
    made = parts(stuck)
    made.engine._shut_down()
    assert stuck not in dict(made.told) and not is_free(tmp_path)  # nobody else may have PERSIST_DIR yet
    assert "the next start finds what was not stored in the journal" in caplog.text


def test_server_whose_loop_waits_for_a_disk_is_given_up(serve, monkeypatch):  # noqa: F811
    monkeypatch.setattr(server, "LATE_SECONDS", 0.0)
    running, _, dial = serve()
    held, go = threading.Event(), threading.Event()
    with closing(dial()):
        running._loop.call_soon_threadsafe(lambda: held.set() or go.wait(60))
        assert held.wait(60)
        try:
            assert running.stop(0.0) is False
        finally:
            go.set()
