"""A running engine under requests that are bent at random. `python -m bench.fuzz requests` goes on with them."""

from collections import Counter

import orjson
import pytest

from engine.tests import fuzzing
from engine.tests.conftest import ARROW, EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish
from engine.tests.test_steps import BY_THREE, BY_TWO, V, inference, named, rules
from opsengine import chunks, encode, logpages, selection
from opsengine import rows as log_rows
from opsengine.errors import RequestError
from opsengine.plane import DataPlane

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


def test_no_request_to_a_pipeline_of_all_kinds_of_steps_is_a_500(load_pipeline):
    start, last = ("start", V[1], models.scale(10.0), ["tensor"]), ("last", V[4], models.scale(4.0, source="a"), None)
    shadow = ("shadow", V[0], models.scale(2.0, source="b"), None)
    routes = {"[0.5]": named(BY_THREE)[0]}
    steps = [
        inference(start),
        {"MetaValueSplit": {"split_key": "tensor", "control": named(BY_TWO)[0], "routes": routes}},
        inference(last, shadow),
        {"AuditResults": {"from": 1, "to": None}},
        rules(
            high={"field": "out.y[1]", "op": ">", "value": 4}, small={"field": "in.tensor[0]", "op": "<", "value": 2}
        ),
    ]
    logged, statuses = [], Counter()
    plane = DataPlane(logged.append, 2**20)
    plane.swap(load_pipeline(start, BY_TWO, BY_THREE, last, shadow, steps=steps))
    for number in range(3000):
        path, headers, body = fuzzing.request(number)
        statuses[answered(plane, path.partition("?")[2], headers, body)] += 1
    assert set(statuses) <= {200, 400, 413, 415} and statuses[200] > 100
    for result in logged:  # what was answered can be logged, and read again
        (page,) = logpages.of_chunks(list(chunks.pack([result])))
        batch = logpages.batch_of(page.described, page.body, page.size, page.count)
        assert len(orjson.loads(b"[%b]" % encode.log_json(log_rows.from_batch(batch), None))) == result.count


def answered(plane, query, headers, body):
    try:
        chosen = selection.parse(query)
        plane.infer(body, headers["Content-Type"], as_arrow=headers["Accept"] == ARROW, selection=chosen)
    except RequestError as refused:
        return refused.status
    return 200


def test_choices_bend_requests_and_leave_some_whole():
    bodies = [fuzzing.request(number)[2] for number in range(300)]
    assert len(set(bodies)) > 250
    assert sum(body.startswith(b"ARROW1") for body in bodies) > 20
    assert fuzzing.request(7) == fuzzing.request(7)
