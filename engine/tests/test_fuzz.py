"""A running engine under requests that are bent at random. `python -m bench.fuzz` goes on for as long as one likes."""

import pytest

from engine.tests import fuzzing
from engine.tests.conftest import EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish

REQUESTS = 1500
FOUND = (110134, 118943)  # did harm once: numbers and lists that Arrow cannot hold, in columns that no model reads


@pytest.fixture
def engine(tmp_path):
    registry = FakeRegistry()
    url, _ = publish(
        registry, "scale", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", [("by-two", "m1", models.scale(2.0), ["tensor"])]
    )
    running = EngineProcess(tmp_path, PIPELINE_URL=url).start().ready()
    yield running
    running.stop()
    registry.stop()


def test_no_request_is_a_500_or_takes_the_engine_down(engine):
    found = [told for told in (fuzzing.harm(engine.port, number) for number in (*FOUND, *range(REQUESTS))) if told]
    assert found == []
    good = [{"tensor": [1.0, 2.0]}]
    status, rows = engine.post("/infer", good)
    assert (status, rows[0]["out"]) == (200, {"y": [2.0, 4.0]})
    assert "Traceback" not in engine.log


def test_choices_bend_requests_and_leave_some_whole():
    bodies = [fuzzing.request(number)[2] for number in range(300)]
    assert len(set(bodies)) > 250
    assert sum(body.startswith(b"ARROW1") for body in bodies) > 20
    assert fuzzing.request(7) == fuzzing.request(7)
