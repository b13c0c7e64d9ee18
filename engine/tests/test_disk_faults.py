"""A PERSIST_DIR that is taken away, cannot be read, or holds something else than an engine left there."""

import threading
from types import SimpleNamespace

import pytest

from engine.tests.conftest import eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import start_joined
from engine.tests.test_updates import wish
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.report import LOCK, Contact, Reporter

VERSION = "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
ROW = [{"tensor": [1.0, 2.0]}]


@pytest.fixture
def url(registry):
    return publish(registry, "scale", VERSION, [("by-2", "m1", models.scale(2.0), ["tensor"])])[0]


def test_state_folder_that_is_taken_away_stops_no_inference_and_is_said(start_engine, url):
    engine = start_engine(PIPELINE_URL=url).ready()
    (engine.folder / "persist").rename(engine.folder / "elsewhere")
    assert engine.post("/infer", ROW)[0] == 200
    status, ready = engine.get("/readyz")
    assert status == 200 and any("was taken away" in text for text in ready["warnings"])
    status, _, page = engine.call("GET", "/status")
    assert status == 200 and b"was taken away" in page and b"inferences cannot be logged" in page
    assert engine.get("/status.json")[1]["disk"]["free"] == 0
    assert engine.call("GET", "/metrics")[0] == 200
    assert engine.stop() == 0


def test_model_that_cannot_be_read_is_fetched_again(start_engine, url):
    engine = start_engine(PIPELINE_URL=url).ready()
    digest = engine.get("/models")[1]["models"][0]["sha"]
    engine.stop()
    blob = engine.folder / "persist" / "store" / "blobs" / "sha256" / digest
    blob.unlink()
    blob.mkdir()  # as root nothing else is unreadable
    (blob / "left").write_text("by a tool that checks disks")
    engine.start()
    engine.ready()
    assert engine.post("/infer", ROW)[0] == 200
    assert "cannot be read on this disk" in engine.log and "Traceback" not in engine.log


@pytest.mark.parametrize("path", ["logs/taken", "logs/tail-0", "logs/rows.sqlite", "store/blobs/sha256", "identity"])
def test_what_is_in_the_way_ends_the_start_with_one_line(start_engine, center, url, tmp_path, path):
    wrong = tmp_path / "persist" / path
    wrong.parent.mkdir(parents=True)
    if path.startswith("logs/"):
        wrong.mkdir()
    else:
        wrong.write_text("a file")
    engine = start_engine(PIPELINE_URL=url, EDGE_BUNDLE=center.add_edge())
    assert engine.wait() == 1
    (line,) = engine.log.splitlines()
    assert line.startswith("opsengine: ") and str(wrong) in line


def test_readiness_is_told_while_the_log_is_being_written(tmp_path):
    """A commit may take seconds on a slow disk, and what is asked in the server's loop must not wait for it."""
    store = LogStore(tmp_path / "logs" / "rows.sqlite", 2**20)
    writer = LogWriter(store, tmp_path / "logs" / "taken")
    (tmp_path / LOCK).touch()
    settings = SimpleNamespace(persist_dir=tmp_path, pipeline_url="r.io/ml/p:1")
    updater = SimpleNamespace(failure=None)
    reporter = Reporter(settings, None, updater, Contact(held="It is off."), None, (store, writer), None)
    told = []
    with store._file.lock:
        asking = threading.Thread(target=lambda: told.append(reporter.brief()))
        asking.start()
        asking.join(20)
    asking.join()
    assert [brief.faults for brief in told] == [("Log rows are held here: It is off.",)]
    writer.stop()
    store.close()


def test_update_that_finds_no_store_says_where_to_look(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center)
    (engine.folder / "persist" / "store").rename(engine.folder / "elsewhere")
    wish(registry, center)
    told = eventually(lambda: next((c["update"]["error"] for c in center.checkins if c["update"]["error"]), None), 30)
    assert told == "PERSIST_DIR cannot be used (No such file or directory): check its disk and its owner."
    assert engine.post("/infer", ROW)[0] == 200
