"""Where a request runs, by what the ones before it took; and when inferences take most of the time."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.tests.fakes import models
from opsengine import traffic as traffic_module
from opsengine.durations import Durations
from opsengine.errors import RequestError
from opsengine.gate import Gate
from opsengine.messages import Request
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


def test_quick_refusals_do_not_bring_a_size_into_the_loop(made, monkeypatch):
    traffic, _ = made
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)
    for _ in range(50):
        with pytest.raises(RequestError):
            traffic.infer(Request("POST", "/infer", body=BODY.replace(b"]", b" ")), None, None, as_arrow=False)
    assert traffic.lane(REQUEST) is Lane.MODEL


def test_large_body_that_is_quick_runs_in_the_loop_by_itself(made, monkeypatch):
    traffic, _ = made
    monkeypatch.setattr(traffic_module, "QUICK_SECONDS", 0.9)
    for length, lane in ((traffic_module.SMALL_BODY, Lane.TOGETHER), (traffic_module.SMALL_BODY + 1, Lane.HERE)):
        request = Request("POST", "/infer", body=BODY.ljust(length))
        traffic.lane(request)
        for _ in range(50):
            traffic.infer(request, None, None, as_arrow=False)
        assert traffic.lane(request) is lane


def test_one_slow_request_sends_the_next_ones_to_the_threads(made, monkeypatch):
    traffic, plane = made
    assert traffic.lane(REQUEST) is Lane.MODEL
    for _ in range(100):
        ask(traffic)
    assert traffic.lane(REQUEST) is Lane.TOGETHER
    whole = plane.infer
    monkeypatch.setattr(plane, "infer", lambda *args, **more: time.sleep(0.1) or whole(*args, **more))
    ask(traffic)
    assert traffic.lane(REQUEST) is Lane.MODEL


def test_new_pipeline_is_timed_anew(made, load_pipeline):
    traffic, plane = made
    assert traffic.lane(REQUEST) is Lane.MODEL
    for _ in range(100):
        ask(traffic)
    assert traffic.lane(REQUEST) is Lane.TOGETHER
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


def test_run_in_the_thread_of_another_counts_for_those_that_met(made, monkeypatch):
    traffic, plane = made
    plane.current.gathers = True
    whole = plane.infer
    monkeypatch.setattr(plane, "infer", lambda *args, **more: time.sleep(0.002) or whole(*args, **more))
    for _ in range(50):
        request = Request("POST", "/infer", body=BODY)
        assert traffic.lane(request) is Lane.MEET
        traffic.infer(request, None, None, as_arrow=False)


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


def test_engine_is_pressed_while_inferences_take_most_of_the_time(made, monkeypatch):
    traffic, plane = made
    clock = [time.monotonic()]
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(f"time.{name}", lambda: clock[0])
    assert not traffic.is_pressed
    whole = plane.infer

    def infer(*args, **more):
        clock[0] += 0.008
        return whole(*args, **more)

    monkeypatch.setattr(plane, "infer", infer)
    for _ in range(10):
        ask(traffic)
        clock[0] += 0.002  # without one
    assert traffic.is_pressed
    ask(traffic)
    clock[0] += 0.01
    assert not traffic.is_pressed


def test_durations_are_counted_below_every_bound_that_they_do_not_pass():
    durations = Durations("made_seconds", "What was made.", ("what",))
    durations.labels("a").observe(0.0005)
    durations.labels("a").observe(0.0006, 3)
    durations.labels("b").observe(31.0)
    (family,) = durations.collect()
    told = {(s.name, s.labels["what"], s.labels.get("le")): s.value for s in family.samples}
    assert [told["made_seconds_bucket", "a", le] for le in ("0.0005", "0.001", "30.0", "+Inf")] == [1, 4, 4, 4]
    assert [told["made_seconds_bucket", "b", le] for le in ("0.0005", "30.0", "+Inf")] == [0, 0, 1]
    assert told["made_seconds_count", "a", None] == 4 and told["made_seconds_sum", "b", None] == 31.0
    assert told["made_seconds_sum", "a", None] == pytest.approx(0.0023)


def test_durations_of_many_threads_are_all_counted():
    durations = Durations("made_seconds", "What was made.", ("what",))
    series = durations.labels("a")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: [series.observe(n / 1000) for _ in range(500)], range(16)))
    (family,) = durations.collect()
    assert {s.value for s in family.samples if s.name == "made_seconds_count"} == {8000}


def test_core_that_others_had_meanwhile_sends_nothing_to_the_threads(made, monkeypatch):
    traffic, plane = made
    assert traffic.lane(REQUEST) is Lane.MODEL
    for _ in range(100):
        ask(traffic)
    whole = plane.infer
    monkeypatch.setattr(plane, "infer", lambda *args, **more: time.sleep(0.005) or whole(*args, **more))
    for _ in range(50):
        ask(traffic)
    assert traffic.lane(REQUEST) is Lane.TOGETHER
    plane.current.is_on_cpu = False  # an accelerator takes no core's time
    for _ in range(50):
        ask(traffic)
    assert traffic.lane(REQUEST) is Lane.MODEL
