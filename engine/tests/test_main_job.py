"""An edge from its first start to its last: join, serve, log, ship, swap, stop."""

import threading
import time

import orjson

from engine.tests.conftest import ARROW, JSON, EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish

V1, V2 = "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "2e78349c-d282-41c9-a435-0c943c3accf1"


def start_joined(start_engine, registry, center, **env):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    center.wish("scale", V1, url, digest)
    bundle = center.add_edge(pipeline_url=url)
    return start_engine(EDGE_BUNDLE=bundle, OCI_REGISTRY=registry.host, **env).ready()


def test_edge_joins_serves_and_ships(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    assert "Node attestation was successful" in engine.log
    status, rows = engine.post("/infer", [{"tensor": [1.0, 2.0]}, {"tensor": [3, 4]}])
    assert (status, [row["out"] for row in rows]) == (200, [{"y": [2.0, 4.0]}, {"y": [6.0, 8.0]}])
    eventually(lambda: center.total()[0] == 2)
    (kept,) = center.rows.values()
    assert [kept[1]["out"], kept[2]["out"]] == [{"y": [2.0, 4.0]}, {"y": [6.0, 8.0]}]
    assert kept[1]["metadata"]["partition"] == "edge-1"
    proof = eventually(lambda: center.checkins and center.checkins[-1]["logs"]["acked"] == 2 and center.checkins[-1])
    assert proof["serving"]["digest"] == center.desired["digest"]
    assert proof["counters"] == {"requests": 1, "rows": 2, "errors": 0}


def test_swap_under_load_fails_and_mixes_no_request(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    answers, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            answers.append(engine.post("/infer", [{"tensor": [1.0, 1.0]}] * 3))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    url, digest = publish(registry, "scale-new", V2, [("by-nine", "m2", models.scale(9.0), ["tensor"])])
    with center.lock:
        center.wish("scale-new", V2, url, digest, publish_id=13)
    eventually(lambda: any(c["serving"] and c["serving"]["digest"] == digest for c in center.checkins))
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    seen = {tuple((row["out"]["y"][0], row["metadata"]["pipeline_version"]) for row in rows) for _, rows in answers}
    assert seen == {((2.0, V1),) * 3, ((9.0, V2),) * 3}
    eventually(lambda: center.total()[0] == 3 * len(answers))
    assert center.total() == (3 * len(answers), 0)
    assert engine.get("/pipelines")[1]["pipelines"] == [{"id": "scale-new", "version": V2, "status": "Running"}]


def test_failing_update_leaves_the_old_pipeline_serving(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    steps = [{"ColumnsSelect": {}}]
    url, digest = publish(registry, "scale", V2, [("by-nine", "m2", models.scale(9.0), None)], steps=steps)
    with center.lock:
        center.wish("scale", V2, url, digest)
    failed = eventually(lambda: next((c for c in center.checkins if c["update"]["state"] == "failed"), None))
    assert "ColumnsSelect" in failed["update"]["error"]
    assert failed["serving"]["pipeline_version"] == V1
    assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}


def test_restart_without_any_network_serves_and_keeps_logging(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 2.0]}])
    eventually(lambda: center.total()[0] == 1)
    assert engine.stop() == 0
    center.stop()
    registry.stop()
    again = EngineProcess(engine.folder, **engine.env).start()
    try:
        again.ready()
        assert again.post("/infer", [{"tensor": [5.0, 5.0]}])[1][0]["out"] == {"y": [10.0, 10.0]}
        assert [row["out"]["y"][0] for row in again.post("/logs", {})[1]] == [2.0, 10.0]
        center.start()
        eventually(lambda: center.total()[0] == 2, 15)
        assert len(center.joins) == 1  # the spent bundle in the environment was not presented again
    finally:
        assert again.stop() == 0


def test_kill_9_with_unshipped_rows_loses_none(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    center.stop()
    sent = 0
    for _ in range(40):
        status, _ = engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 5)
        sent += 5 if status == 200 else 0
    engine.kill()  # the last rows cannot have reached the store yet
    center.start()
    again = EngineProcess(engine.folder, **engine.env).start().ready()
    try:
        eventually(lambda: sum(center.total()) >= sent, 15)
        again.post("/infer", [{"tensor": [1.0, 2.0]}])
        eventually(lambda: sum(center.total()) > sent, 15)
        received, lost = center.total()
        assert (received, lost) == (sent + 1, 0)
        (kept,) = center.rows.values()
        assert sorted(kept) == list(range(1, sent + 2))
    finally:
        again.stop()


def test_sigterm_ends_in_order_with_rows_on_disk_and_shipped(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 7)
    assert engine.stop() == 0
    if "The disk of PERSIST_DIR is too slow" in engine.log:  # for its part of ten seconds: no row is lost then either
        engine.start()
        eventually(lambda: sum(center.total()) >= 7, 60)
    assert center.total() == (7, 0)


def test_arrow_in_and_out(start_engine, registry, center, data):
    model = (data / "houseprice" / "rf_model.onnx").read_bytes()
    url, _ = publish(registry, "houseprice", V1, [("rf-house-price-estimator", "m1", model, ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready()
    body = (data / "houseprice" / "xtest-1k.arrow").read_bytes()
    status, headers, answer = engine.call("POST", "/infer", body, {"Content-Type": ARROW, "Accept": JSON})
    rows = orjson.loads(answer)
    assert (status, headers["content-type"], len(rows)) == (200, JSON, 1000)
    assert b'"out":{"variable":[718013.7]}' in answer
