"""Where a request runs, by what the ones before it took; and when inferences take most of the time."""

import time

import pytest

from engine.tests.fakes import models
from opsengine import traffic as traffic_module
from opsengine.errors import RequestError
from opsengine.gate import Gate
from opsengine.http1 import Request
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.server import Lane
from opsengine.traffic import Traffic

BODY = b'[{"tensor": [1.0, 2.0]}]'
REQUEST = Request("POST", "/infer", body=BODY)


@pytest.fixture
def made(load_pipeline):
    plane = DataPlane(lambda result: None, 2**20)
    plane.swap(load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"])))
    return Traffic(plane, Gate(2, 1, 1000), Metrics(lambda: ("by-two",)), lambda digest, fine: None), plane


def ask(traffic):
    return traffic.infer(Request("POST", "/infer", body=BODY), None, None, as_arrow=False)


def test_size_that_is_not_known_yet_runs_in_a_thread_and_a_quick_one_in_the_loop(made, monkeypatch):
    traffic, _ = made
    assert traffic_module.QUICK_SECONDS == 0.001
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)  # so that a busy machine counts as quick too
    assert traffic.lane(REQUEST) is Lane.MODEL
    for _ in range(50):
        ask(traffic)
    assert traffic.lane(REQUEST) is Lane.TOGETHER
    assert traffic.lane(Request(body=bytes(2**16))) is Lane.MODEL


def test_one_slow_request_sends_the_next_ones_to_the_threads(made, monkeypatch):
    traffic, plane = made
    for _ in range(50):
        ask(traffic)
    whole = plane.infer
    monkeypatch.setattr(plane, "infer", lambda *args, **more: time.sleep(0.1) or whole(*args, **more))
    ask(traffic)
    assert traffic.lane(REQUEST) is Lane.MODEL


def test_new_pipeline_is_timed_anew(made, load_pipeline):
    traffic, plane = made
    for _ in range(50):
        ask(traffic)
    plane.swap(load_pipeline(("by-nine", "m2", models.scale(9.0), ["tensor"]), name="other"))
    assert traffic.lane(REQUEST) is Lane.MODEL


def test_what_may_hang_never_runs_in_the_loop(made):
    traffic, plane = made
    for _ in range(50):
        ask(traffic)
    plane.current.is_steady = False  # as with a Python step
    assert traffic.lane(REQUEST) is Lane.MODEL


def test_pipeline_that_gathers_lets_all_meet(made):
    traffic, plane = made
    plane.current.gathers = True
    assert traffic.lane(REQUEST) is Lane.MEET


def test_refused_requests_are_counted_and_leave_no_trace(made):
    traffic, _ = made
    for _ in range(3):
        traffic.admit(10)
    with pytest.raises(RequestError) as caught:
        traffic.admit(10)
    assert caught.value.status == 429
    assert b'code="429"' in traffic._metrics.render()
    for _ in range(3):
        traffic.leave(10)
    traffic.admit(1000)


def test_engine_is_pressed_while_inferences_take_most_of_the_time(made):
    traffic, _ = made
    assert not traffic.is_pressed
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        ask(traffic)
    assert traffic.is_pressed
    time.sleep(0.05)
    assert not traffic.is_pressed
