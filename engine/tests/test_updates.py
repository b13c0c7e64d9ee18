"""Updates that must not stick: golden requests, publishes that fail or crash, disks without room, damaged files."""

import threading
import time

import orjson
import pytest

from engine.tests.conftest import ROOT, EngineProcess, eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1, V2, start_joined
from opsengine import golden as golden_request
from opsengine import store as content
from opsengine import trial, updater
from opsengine.errors import PipelineError, RegistryError
from opsengine.plane import DataPlane
from opsengine.settings import RegistrySettings, Settings
from opsengine.trial import Ledger
from opsengine.updater import Updater, Wanted

V3 = "7c5a1f0e-8a51-4a6e-9a1e-0d5d1c1b2a3f"
GOLDEN = {"input": [{"tensor": [1.0, 2.0]}], "output": {"y": [[9.0, 18.0]]}}


def wish(registry, center, version=V2, factor=9.0, **changes):
    """Publish a pipeline and have the center want it; returns its digest."""
    url, digest = publish(registry, "scale", version, [("new", "m2", models.scale(factor), ["tensor"])], **changes)
    with center.lock:
        center.wish("scale", version, url, digest, publish_id=13)
    return digest


def failed(center):
    return eventually(lambda: next((c for c in center.checkins if c["update"]["state"] == "failed"), None), 15)


def test_golden_request_that_holds_lets_the_publish_serve(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    digest = wish(registry, center, golden=GOLDEN)
    eventually(lambda: center.serving == digest, 30)
    assert "The golden request of the publish gave what it should" in engine.log
    assert center.checkins[-1]["counters"]["requests"] == 0  # nothing of it is counted or logged
    assert engine.post("/logs", {})[1] == []


def test_golden_request_that_fails_keeps_the_old_publish_and_says_why(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    wish(registry, center, golden={**GOLDEN, "output": {"y": [[9.0, 18.1]]}})
    told = failed(center)
    assert told["update"]["error"] == ("The golden request of the publish gave 18.0 in row 0 of 'y' instead of 18.1.")
    assert told["serving"]["pipeline_version"] == V1
    assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}


def test_golden_request_may_be_a_layer_of_its_own(make_updater, registry, data):
    model = (data / "houseprice/rf_model.onnx").read_bytes()
    url, digest = publish(registry, "houseprice", V1, [("rf", "m1", model, ["tensor"])])
    shipped = orjson.loads((ROOT / "contract/golden.json").read_bytes())
    made, plane = make_updater()
    for value, serves in ((shipped["output"]["variable"][0][0], True), (700000.0, False)):
        manifest = orjson.loads(registry.blobs[digest])
        golden_bytes = orjson.dumps({**shipped, "output": {"variable": [[value]]}})
        layer = {"mediaType": "application/json", "digest": registry.put(golden_bytes), "size": len(golden_bytes)}
        manifest["layers"].append({**layer, "annotations": {"org.cncf.model.filepath": "golden.json"}})
        changed = registry.push("ml/pipelines/houseprice", "changed", manifest)
        bring(made, Wanted(url, changed))
        assert (plane.current.digest == changed) is serves
    assert "instead of 700000.0" in made.failure.message


def test_golden_tolerance_is_the_publishs_own(load_pipeline):
    pipeline = load_pipeline(("new", "m2", models.scale(9.0), ["tensor"]))
    near = {"y": [[9.0, 18.1]]}
    golden_request.check(golden_request._read({**GOLDEN, "output": near, "atol": 0.2}), pipeline, 2**20)
    with pytest.raises(PipelineError, match=r"instead of 18\.1"):
        golden_request.check(golden_request._read({**GOLDEN, "output": near}), pipeline, 2**20)
    with pytest.raises(PipelineError, match="no output"):
        golden_request.check(golden_request._read({**GOLDEN, "output": {"z": [1]}}), pipeline, 2**20)
    with pytest.raises(PipelineError, match="was refused"):
        golden_request.check(golden_request._read({**GOLDEN, "input": [{"tensor": [1.0]}]}), pipeline, 2**20)


def test_models_get_the_cpus_of_the_settings(make_updater, registry):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    made, plane = make_updater(cpus=3)
    bring(made, Wanted(url, digest))
    (model,) = plane.current._models.values()
    assert model._session.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("wrong", [{}, [], {"input": []}, {"input": [{}], "output": {"y": []}}, {"input": 1}])
def test_golden_request_that_cannot_be_read_is_refused(store, load_pipeline, wrong):
    pipeline = load_pipeline(("new", "m2", models.scale(9.0), ["tensor"]), golden=wrong)
    with pytest.raises(PipelineError, match="cannot be read"):
        golden_request.find(pipeline.digest, store)


@pytest.fixture
def make_updater(tmp_path, registry):
    """An updater without a process around it."""

    def make(**changes):
        plane = DataPlane(lambda _: None, 2**20)
        given = Settings("x", RegistrySettings(), persist_dir=tmp_path, **changes)
        return Updater(given, plane, tmp_path, lambda: None), plane

    return make


def bring(made, wanted):
    made.want(wanted)
    eventually(lambda: not made.is_busy)


def two(registry, **changes):
    """Two publishes: (location, digest) each."""
    made = []
    for version, factor in ((V1, 2.0), (V2, 9.0)):
        given = changes if version == V2 else {}
        made.append(publish(registry, "scale", version, [("m", version, models.scale(factor), ["tensor"])], **given))
    return [Wanted(*one) for one in made]


def test_publish_whose_first_inferences_all_fail_is_taken_back(make_updater, registry):
    old, new = two(registry)
    made, plane = make_updater()
    bring(made, old)
    made.observe(old.digest, True)
    bring(made, new)
    for _ in range(trial.FAILURES - 1):
        made.observe(new.digest, False)
    assert plane.current.digest == new.digest
    made.observe(new.digest, False)
    assert plane.current.digest == old.digest  # at once
    eventually(lambda: made.failure)
    assert made.failure.message.startswith("Its first 20 inferences all failed.")
    bring(made, new)
    assert plane.current.digest == old.digest and made.failure
    again, second = make_updater()  # nor after a new start
    assert again.serve_last() and second.current.digest == old.digest
    bring(again, new)
    assert second.current.digest == old.digest and again.failure
    bring(again, old)
    assert again.failure is None
    bring(again, new)  # something else was wanted in between
    assert second.current.digest == new.digest


def test_one_good_inference_ends_the_trial(make_updater, registry):
    old, new = two(registry)
    made, plane = make_updater()
    bring(made, old)
    bring(made, new)
    made.observe(new.digest, False)
    made.observe(new.digest, True)
    for _ in range(50):
        made.observe(new.digest, False)
    assert plane.current.digest == new.digest and made.failure is None


def test_failures_of_the_publish_before_do_not_count(make_updater, registry):
    old, new = two(registry)
    made, plane = make_updater()
    bring(made, old)
    bring(made, new)
    for _ in range(50):
        made.observe(old.digest, False)
    assert plane.current.digest == new.digest


def test_publish_that_the_process_died_of_twice_is_taken_back(make_updater, registry, tmp_path):
    old, new = two(registry)
    made, _ = make_updater()
    bring(made, old)
    made.stop()
    bring(made, new)  # and the process dies without a word
    ledger = Ledger(tmp_path / "trial.json")
    assert not ledger.has_crashed(new.digest)
    ledger.begin(new.digest)  # as does the next
    again, plane = make_updater()
    assert again.serve_last()
    assert plane.current.digest == old.digest
    assert again.failure.message.startswith("It ended the engine 2 times in a row")
    bring(again, new)
    assert plane.current.digest == old.digest


def test_publish_that_kills_the_process_while_it_loads_is_given_up(make_updater, registry, tmp_path):
    old, new = two(registry)
    made, _ = make_updater()
    bring(made, old)
    made.stop()
    for _ in range(2):
        Ledger(tmp_path / "trial.json").begin(new.digest)  # died before the swap, so it was never `active`
    again, plane = make_updater()
    assert again.serve_last()
    bring(again, new)
    assert plane.current.digest == old.digest
    assert "It ended the engine 2 times" in again.failure.message and again.failure.retry_at is None


def test_the_only_publish_is_tried_again_however_often_the_process_died(make_updater, registry, tmp_path):
    old, _ = two(registry)
    made, _ = make_updater()
    bring(made, old)
    for _ in range(5):
        Ledger(tmp_path / "trial.json").begin(old.digest)
    again, plane = make_updater()
    assert again.serve_last() and plane.current.digest == old.digest


def test_orderly_stops_are_no_crashes(make_updater, registry):
    old, new = two(registry)
    made, _ = make_updater()
    bring(made, old)
    bring(made, new)
    for _ in range(4):
        made.stop()
        made, plane = make_updater()
        assert made.serve_last() and plane.current.digest == new.digest


def test_disk_without_room_is_refused_before_a_model_is_pulled(make_updater, registry, monkeypatch):
    old, new = two(registry)
    made, plane = make_updater()
    bring(made, old)
    registry.requests.clear()
    usage = content.shutil.disk_usage
    monkeypatch.setattr(content.shutil, "disk_usage", lambda path: usage(path)._replace(free=26 * 2**20))
    monkeypatch.setattr(content.ContentStore, "missing", lambda *_: 5 * 2**30)
    bring(made, new)
    assert "The disk of PERSIST_DIR has 26 MiB free, but the pipeline needs 5121 MiB more" in made.failure.message
    assert plane.current.digest == old.digest
    assert len(registry.pulled("/blobs/")) <= 1  # pipeline.json at most
    assert made.failure.retry_at is not None  # somebody may make room


@pytest.mark.parametrize("part", ["model", "config", "manifest"])
def test_damaged_file_is_found_at_the_start_and_fetched_again(start_engine, registry, part):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready()
    engine.stop()
    manifest = orjson.loads(registry.blobs[digest])
    hit = {"manifest": digest, "config": manifest["layers"][0]["digest"], "model": manifest["layers"][1]["digest"]}
    path = engine.folder / "persist/store/blobs/sha256" / hit[part].removeprefix("sha256:")
    right = path.read_bytes()
    path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    registry.requests.clear()
    again = start_engine(PIPELINE_URL=url).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}
    assert f"{hit[part]} is damaged on this disk" in again.log
    assert path.read_bytes() == right
    if part == "model":
        assert len(registry.pulled("/blobs/")) == 1  # only what was damaged


@pytest.mark.parametrize("damaged", [b"", b'{"active":', b"[]", b'{"active":{"location":1}}'])
def test_damaged_note_of_what_was_served_is_read_from_its_copy(make_updater, registry, tmp_path, damaged):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    bring(make_updater()[0], Wanted(url, digest))
    registry.stop()
    (tmp_path / "served.json").write_bytes(damaged)
    made, plane = make_updater()
    assert made.serve_last() and plane.current.digest == digest
    (tmp_path / "served.copy.json").write_bytes(damaged)
    assert not make_updater()[0].serve_last()


def test_half_written_files_never_load(start_engine, registry):
    url, digest = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url).ready()
    engine.stop()
    model = orjson.loads(registry.blobs[digest])["layers"][1]["digest"].removeprefix("sha256:")
    store = engine.folder / "persist/store"
    data = (store / "blobs/sha256" / model).read_bytes()
    (store / "blobs/sha256" / model).unlink()
    (store / "partial" / model).write_bytes(data[: len(data) // 2])
    again = start_engine(PIPELINE_URL=url).ready()
    assert again.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [2.0, 2.0]}
    assert any(headers.get("Range") for _, path, headers in registry.requests if "/blobs/" in path)


def test_damaged_publish_offline_leaves_the_one_before_serving(make_updater, registry, tmp_path):
    old, new = two(registry)
    made, _ = make_updater()
    bring(made, old)
    bring(made, new)
    made.stop()
    model = orjson.loads(registry.blobs[new.digest])["layers"][1]["digest"].removeprefix("sha256:")
    (tmp_path / "store/blobs/sha256" / model).write_bytes(b"rot")
    again, plane = make_updater()
    assert again.serve_last()
    assert plane.current.digest == old.digest
    assert again.lost == new  # fetched again as soon as it can be
    bring(again, again.lost)
    assert plane.current.digest == new.digest and again.lost is None


def test_only_missing_layers_are_pulled(make_updater, registry):
    shared = ("same", "m1", models.scale(2.0), ["tensor"])
    one = Wanted(*publish(registry, "scale", V1, [shared]))
    two_steps = [shared, ("more", "m2", models.scale(3.0, source="y", result="z"), None)]
    other = Wanted(*publish(registry, "scale", V2, two_steps))
    made, plane = make_updater()
    bring(made, one)
    registry.requests.clear()
    bring(made, other)
    assert plane.current.digest == other.digest
    assert len(registry.pulled("/blobs/")) == 2  # pipeline.json and the second model


def test_interrupted_update_goes_on_by_range(start_engine, registry, center):
    start_joined(start_engine, registry, center)
    registry.requests.clear()
    registry.cut_after = [None, 60]  # pipeline.json whole, the model cut off
    digest = wish(registry, center)
    eventually(lambda: center.serving == digest, 30)
    assert "bytes=60-" in [headers.get("Range") for _, path, headers in registry.requests if "/blobs/" in path]


def test_taken_back_publish_is_told_to_the_center(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    engine.post("/infer", [{"tensor": [1.0, 1.0]}])
    broken = models.fails_on_rows()
    url, digest = publish(registry, "scale", V2, [("broken", "m2", broken, ["tensor"])])
    with center.lock:
        center.wish("scale", V2, url, digest, publish_id=13)
    eventually(lambda: center.serving == digest, 30)
    statuses = [engine.post("/infer", [{"tensor": [1.0, 1.0]}] * 3)[0] for _ in range(trial.FAILURES + 1)]
    assert statuses == [500] * trial.FAILURES + [200]
    told = failed(center)
    assert told["serving"]["pipeline_version"] == V1
    assert told["update"]["error"].startswith("Its first 20 inferences all failed.")
    count = len(registry.requests)
    time.sleep(1)
    assert len(registry.requests) == count  # not tried again


def test_kill_at_any_moment_of_an_update_leaves_one_whole_publish(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    for turn in range(4):
        version = f"0000000{turn}-0000-4000-8000-000000000000"
        digest = wish(registry, center, version, 3.0 + turn)
        time.sleep(0.15 * turn)
        engine.kill()
        engine = EngineProcess(engine.folder, **engine.env).start().ready()
        try:
            eventually(lambda digest=digest: center.serving == digest, 30)
            assert engine.post("/infer", [{"tensor": [1.0, 1.0]}])[1][0]["out"] == {"y": [3.0 + turn] * 2}
        except AssertionError:
            engine.stop()
            raise
        last = engine
    last.stop()


def test_verdict_is_given_once_under_load(make_updater, registry):
    old, new = two(registry)
    made, plane = make_updater()
    bring(made, old)
    bring(made, new)
    threads = [threading.Thread(target=made.observe, args=(new.digest, False)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plane.current.digest == old.digest
    eventually(lambda: made.failure)
    assert made.served.previous is None


def test_ledger_that_is_damaged_or_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "trial.json").write_bytes(b"{")
    ledger = Ledger(tmp_path / "trial.json")
    assert not ledger.has_crashed("x")
    gone = Ledger(tmp_path / "none" / "trial.json")
    gone.begin("x")
    gone.begin("x")
    assert gone.has_crashed("x")


def test_failed_registry_is_tried_again(make_updater, registry, monkeypatch):
    monkeypatch.setattr(updater.transport, "pause", lambda *_, **__: 0.01)
    old, _ = two(registry)
    registry.statuses = [503] * 5
    made, plane = make_updater()
    bring(made, old)
    assert made.failure.retry_at is not None
    time.sleep(0.05)
    bring(made, old)
    assert plane.current.digest == old.digest


def test_missing_counts_what_is_still_to_be_fetched(store, tmp_path):
    digest = store.write(b"x" * 100)
    other = "sha256:" + "0" * 64
    assert (store.missing(digest, 100), store.missing(other, 70)) == (0, 70)
    (tmp_path / "store/partial" / ("0" * 64)).write_bytes(b"y" * 30)
    assert store.missing(other, 70) == 40
    with pytest.raises(RegistryError, match="make room"):
        store.check_room(2**60)
