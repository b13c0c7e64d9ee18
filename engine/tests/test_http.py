"""The HTTP surface of a running engine: statuses, types and the log endpoint."""

import http.client
import socket
from contextlib import closing

import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW, JSON, EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish

VERSION = "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
CURL_TYPE = "Content-Type: application/json; format=pandas-records"  # as the documented curl line sends it


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    registry = FakeRegistry()
    url, _ = publish(registry, "scale", VERSION, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    running = EngineProcess(tmp_path_factory.mktemp("http"), PIPELINE_URL=url, MAX_BODY="64Ki").start().ready()
    yield running
    running.stop()
    registry.stop()


def test_infer_and_the_pipelines_own_address_answer_alike(engine):
    for path in ("/infer", "/pipelines/scale"):
        status, rows = engine.post(path, [{"tensor": [1.0, 2.0]}])
        assert (status, rows[0]["out"]) == (200, {"y": [2.0, 4.0]})


def test_partition_without_a_bundle_is_the_host_name(engine):
    _, rows = engine.post("/infer", [{"tensor": [1.0, 2.0]}])
    assert rows[0]["metadata"]["partition"] == socket.gethostname()


def test_pipelines_and_models_are_listed(engine):
    assert engine.get("/pipelines") == (200, {"pipelines": [{"id": "scale", "version": VERSION, "status": "Running"}]})
    status, told = engine.get("/models")
    (model,) = told["models"]
    assert (status, model["name"], model["version"], model["status"]) == (200, "by-two", "m1", "Running")
    assert len(model["sha"]) == 64


def test_health_and_readiness(engine):
    assert engine.get("/healthz") == (200, {"status": "alive"})
    assert engine.get("/readyz") == (200, {"status": "ready"})
    assert engine.call("HEAD", "/healthz")[0::2] == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/infer", 405),
        ("DELETE", "/logs", 405),
        ("POST", "/models", 405),
        ("POST", "/pipelines/other", 404),
        ("POST", "/pipelines/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
    ],
)
def test_wrong_address_or_method(engine, method, path, status):
    found, headers, body = engine.call(method, path, b"[]" if method == "POST" else None)
    told = orjson.loads(body)
    assert found == told["code"] == status
    assert (told["status"], told["source"]) == ("Error", "engine") and told["error"]
    assert ("allow" in headers) == (status == 405)


def test_wrong_input_is_told_to_the_caller(engine):
    status, told = engine.post("/infer", [{"tensor": [1.0]}])
    assert (status, told["code"]) == (400, 400)
    assert 'Column "tensor"' in told["error"]
    assert engine.post("/infer", b"a,b", **{"Content-Type": "text/csv"})[0] == 415


def test_body_over_the_limit_is_413_before_it_is_read(engine):
    with closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5)) as connection:
        connection.putrequest("POST", "/infer")
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_chunked_body_is_read_and_bounded(engine):
    for size, status in ((1, 200), (4000, 413)):
        rows = orjson.dumps([{"tensor": [1.0, 2.0]}] * size)
        pieces = [rows[at : at + 5000] for at in range(0, len(rows), 5000)]
        with closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=5)) as connection:
            connection.request("POST", "/infer", iter(pieces), {"Content-Type": JSON}, encode_chunked=True)
            assert connection.getresponse().status == status


@pytest.mark.parametrize(("size", "status"), [(1_000, 200), (20_000, 413)])
def test_only_inferences_may_have_large_bodies(engine, size, status):
    body = orjson.dumps({"limit": 1, "note": "x" * size})
    found, told = engine.post("/logs", body)
    assert found == status and (status == 200 or "larger than 16384 bytes: send less" in told["error"])
    with closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)) as connection:
        pieces = [body[at : at + 500] for at in range(0, len(body), 500)]
        connection.request("POST", "/logs", iter(pieces), {"Content-Type": JSON}, encode_chunked=True)
        assert connection.getresponse().status == status
    assert engine.call("POST", "/nothing", body)[0] == (404 if status == 200 else 413)


def test_arrow_comes_back_when_it_is_asked_for(engine):
    status, headers, body = engine.call(
        "POST", "/infer", orjson.dumps([{"tensor": [1.0, 2.0]}]), {"Content-Type": JSON, "Accept": ARROW}
    )
    assert (status, headers["content-type"]) == (200, ARROW)
    assert pa.ipc.open_file(body).read_all().column("out").to_pylist() == [{"y": [2.0, 4.0]}]


def test_logs_show_what_was_answered_at_once(engine):
    _, answered = engine.post("/infer", [{"tensor": [n, 0.1]} for n in range(3)])
    status, rows = engine.post("/logs", b"{}", **{"Content-Type": CURL_TYPE})
    assert status == 200
    assert [set(row) for row in rows[-3:]] == [{"time", "in", "out", "anomaly", "metadata"}] * 3
    for logged, answer in zip(rows[-3:], answered, strict=True):
        assert logged == {name: answer[name] for name in logged}


def test_logs_are_limited_and_cut_by_time(engine):
    _, first = engine.post("/infer", [{"tensor": [1.0, 1.0]}] * 5)
    _, rows = engine.post("/logs", {"limit": 2})
    assert len(rows) == 2
    assert engine.post("/logs", {"start": first[0]["time"] + 10**6})[1] == []
    assert engine.post("/logs", {"end": "1999-01-01T00:00:00Z"})[1] == []
    assert len(engine.post("/logs", {"start": first[0]["time"]})[1]) >= 5
    for wrong in ({"limit": 0}, {"limit": "x"}, {"start": "yesterday"}, [1]):
        assert engine.post("/logs", wrong)[0] == 400


def test_logs_are_the_newest_thousand_unless_more_is_asked_for(engine):
    for first in (0, 600):
        engine.post("/infer", [{"tensor": [first + n, 0.5]} for n in range(600)])
    numbers = [row["in"]["tensor"][0] for row in engine.post("/logs", {})[1]]
    assert numbers == [float(n) for n in range(200, 1200)]
    assert [row["in"]["tensor"][0] for row in engine.post("/logs", {"limit": 1200})[1]] == list(range(1200))


def test_query_narrows_answers_and_logs(engine):
    query = "?dataset%5B%5D=out&dataset%5B%5D=anomaly.count"
    _, rows = engine.post(f"/infer{query}", [{"tensor": [1.0, 2.0]}])
    assert {name for row in rows for name in row} == {"time", "out.y", "anomaly.count"}
    assert set(engine.post(f"/logs{query}", {"limit": 1})[1][0]) == {"time", "out.y", "anomaly.count"}


def test_account_of_the_start_is_in_the_log(engine):
    lines = engine.log.splitlines()
    wanted = ["Fetching manifest and config for pipeline: ", "Fetching model layers", "digest: sha256:"]
    wanted += ["  filename: ", "  name: by-two", "  type: model", "  runtime: onnx", "  version: m1", "Starting engine"]
    places = [next(at for at, line in enumerate(lines) if line.startswith(begin)) for begin in wanted]
    assert places == sorted(places)
