"""The log at a site: its cap, inputs too long for it, a full disk, a week without a network, and catching up."""

import os
import subprocess
import threading
import time

import numpy as np
import pytest

from engine.tests.conftest import eventually
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_logstore import one_page, page, result
from engine.tests.test_main_job import V1, start_joined
from engine.tests.test_shipping import ship_all
from engine.tests.test_site import scraped
from opsengine import bundle, recorder, shipper, transport
from opsengine.center import Center
from opsengine.errors import CenterUnavailable
from opsengine.identity import Identity
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.shipper import Shipper


@pytest.fixture
def open_log(tmp_path):
    opened = []

    def make(cap):
        opened.append(LogStore(tmp_path / "logs" / "rows.sqlite", cap))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


def on_disk(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("cap", [2**20, 8 * 2**20])
def test_cap_holds_for_all_files_together_at_all_times(open_log, tmp_path, cap):
    log, rng, largest, written = open_log(cap), np.random.default_rng(1), 0, 0
    for turn in range(60):
        count = int(rng.integers(1, 400 if cap == 2**20 else 1000))
        noise = rng.random((count, 100)).astype(np.float32)  # does not compress
        made = result(*range(count))
        made.inputs["x"] = noise
        written += count
        log.append([one_page(made)])
        largest = max(largest, on_disk(tmp_path / "logs"))
        if turn % 7 == 0:
            log.acknowledge(log.position.last - 500)
    assert largest <= cap, f"{largest} bytes on a cap of {cap}"
    assert largest > cap / 3
    position = log.position
    kept = sum(batch.num_rows for batch in log.newest(10**6))
    assert position.last == written and 0 < kept < written


def test_long_inputs_are_answered_but_only_named_in_the_log(start_engine, registry, center):
    wide = models.scale(2.0, width=400)
    url, digest = publish(registry, "wide", V1, [("wide", "m1", wide, ["tensor"])])
    center.wish("wide", V1, url, digest)
    bundle_text = center.add_edge(pipeline_url=url)
    engine = start_engine(EDGE_BUNDLE=bundle_text, OCI_REGISTRY=registry.host, LOG_FIELD_LIMIT="1Ki").ready()
    _, answered = engine.post("/infer", [{"tensor": [1.0] * 400, "note": "short"}] * 2)
    assert len(answered[0]["in"]["tensor"]) == 400 and answered[0]["metadata"]["dropped"] == []
    _, logged = engine.post("/logs", {})
    assert [set(row["in"]) for row in logged] == [{"note"}] * 2
    assert logged[0]["metadata"]["dropped"] == ["tensor"] and len(logged[0]["out"]["y"]) == 400
    eventually(lambda: center.total() == (2, 0))
    (kept,) = center.rows.values()
    assert kept[1]["in"] == {"note": "short"} and kept[1]["metadata"]["dropped"] == ["tensor"]


@pytest.mark.parametrize(
    ("value", "is_dropped"),
    [
        (np.zeros((2, 10), np.float32), False),
        (np.zeros((2, 30), np.float32), True),
        (["short", "x" * 101], True),
        (["x" * 50, "y" * 50], False),
        ([[1.0] * 20, None], True),
        ([None, {"a": "b"}], False),
        (np.array(["x" * 200, "y"], dtype=object), True),
    ],
)
def test_what_counts_is_the_longest_row(value, is_dropped):
    made = result(1.0, 2.0)
    made.inputs["long"] = value
    kept = recorder.trimmed(made, 100)
    assert ("long" in kept.dropped, "long" in kept.inputs) == (is_dropped, not is_dropped)
    assert "x" in kept.inputs and "long" in made.inputs


def test_dropped_inputs_survive_a_kill(open_log, tmp_path):
    log = open_log(2**23)
    made = result(1.0, 2.0)
    made.inputs["long"] = ["x" * 200] * 2
    LogWriter(log, tmp_path / "taken").put(recorder.trimmed(made, 100))  # never written: as if killed
    LogWriter(log, tmp_path / "taken")
    (batch,) = log.newest(10)
    assert batch.column("metadata").to_pylist()[0]["dropped"] == ["long"]


@pytest.fixture
def make_shipper(center, open_log, tmp_path):
    def make(log, **changes):
        joined = Center(bundle.parse(center.add_edge("edge-1")), Identity(tmp_path / "identity"))
        joined.join()
        return Shipper(joined, log, LogWriter(log, tmp_path / "taken"), 1000, **changes)

    return make


def test_a_week_without_a_network_is_shipped_whole_afterwards(center, open_log, make_shipper, monkeypatch):
    monkeypatch.setattr(transport, "pause", lambda *_, **__: 0.0)
    log = open_log(64 * 2**20)
    sender = make_shipper(log)
    began = 1_763_683_200_000
    center.stop()
    for hour in range(7 * 24):
        log.append([page(*range(50), moment=began + hour * 3_600_000)])
        if hour % 24 == 0:
            with pytest.raises(CenterUnavailable):
                sender.ship_once()
    center.start()
    center.valid.clear()  # every access token ran out long ago
    ship_all(sender, 300)
    assert center.total() == (7 * 24 * 50, 0)
    (kept,) = center.rows.values()
    assert sorted(kept) == list(range(1, 7 * 24 * 50 + 1))
    times = {row["time"].timestamp() for row in kept.values()}
    assert len(times) == 7 * 24 and log.position.acked == log.position.last


def test_a_week_over_the_cap_is_accounted_for_to_the_row(center, open_log, make_shipper, monkeypatch):
    monkeypatch.setattr(transport, "pause", lambda *_, **__: 0.0)
    log, rng = open_log(2**20), np.random.default_rng(1)
    sender = make_shipper(log)
    for hour in range(7 * 24):
        made = result(*range(50), moment=1_763_683_200_000 + hour * 3_600_000)
        made.inputs["x"] = rng.random((50, 100)).astype(np.float32)  # does not compress
        log.append([one_page(made)])
    ship_all(sender, 1000)
    received, lost = center.total()
    assert received + lost == 7 * 24 * 50 and received > 0 and lost > 0
    assert {gap["reason"] for gap in center.gaps} == {"storage_limit"}
    (kept,) = center.rows.values()
    numbers = sorted([*kept, *(n for gap in center.gaps for n in range(gap["first"], gap["last"] + 1))])
    assert numbers == list(range(1, 7 * 24 * 50 + 1))


def test_pauses_stay_bounded_however_long_it_takes():
    assert all(0 < transport.pause(attempt) <= 60 for attempt in (0, 5, 100, 10_000))


def test_catching_up_pauses_between_pages_while_requests_wait(center, open_log, make_shipper):
    log = open_log(2**24)
    for _ in range(6):
        log.append([page(*range(1000))])
    waits = threading.Event()
    waits.set()
    sender = make_shipper(log, is_busy=waits.is_set)
    sender.start()
    time.sleep(shipper.YIELD_SECONDS * 2.5)
    slow = len(center.pages)
    waits.clear()
    eventually(lambda: center.total() == (6000, 0))
    sender.stop(2)
    assert 1 <= slow <= 3


def test_requests_are_answered_fast_while_a_slow_center_takes_a_backlog(start_engine, registry, center):
    engine = start_joined(start_engine, registry, center, PLATEAU_PAGE_SIZE="500", LOCAL_INFERENCE_STORAGE="1Gi")
    center.stop()
    for _ in range(20):
        engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 1000)
    with center.lock:
        center.refuse["/edge/v1/logs"] = [lambda: time.sleep(0.2)] * 40
    center.start()
    took = []
    for _ in range(100):
        began = time.perf_counter()
        assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[0] == 200
        took.append(time.perf_counter() - began)
    assert sorted(took)[90] < 0.25, sorted(took)[-5:]
    eventually(lambda: center.total() == (20_100, 0), 40)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_stops_no_inference_and_is_said_and_counted(start_engine, registry, center, small_disk):
    engine = start_joined(start_engine, registry, center, PERSIST_DIR=small_disk / "persist")
    engine.post("/infer", [{"tensor": [1.0, 2.0]}])
    eventually(lambda: center.total() == (1, 0))
    filler = (small_disk / "filler").open("wb", buffering=0)
    with pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"x" * 2**16)
    for size in (4096, 512, 1):  # the last corner
        with pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(b"x" * size)
    for _ in range(50):
        assert engine.post("/infer", [{"tensor": [1.0, 2.0]}] * 100)[0] == 200
    status, ready = eventually(lambda: (told := engine.get("/readyz"))[1].get("warnings") and told)
    assert status == 200 and "inference log cannot be written" in ready["warnings"][0]
    assert scraped(engine)["opsengine_log_write_failing"] == 1
    assert "Serving, but inferences cannot be logged." in engine.call("GET", "/status")[2].decode()
    assert len([line for line in engine.log.splitlines() if "journal cannot be written" in line]) <= 2
    filler.close()
    (small_disk / "filler").unlink()
    eventually(lambda: sum(center.total()) == 5001, 20)
    assert engine.get("/readyz")[1] == {"status": "ready"}
    assert scraped(engine)["opsengine_log_write_failing"] == 0
    assert engine.post("/infer", [{"tensor": [1.0, 2.0]}])[0] == 200


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_engine_that_ended_on_a_full_disk_serves_again_on_it(start_engine, registry, center, small_disk, end):
    engine = start_joined(start_engine, registry, center, PERSIST_DIR=small_disk / "persist")
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        for size in (2**16, 4096, 1):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                continue
    engine.post("/infer", [{"tensor": [1.0, 2.0]}])
    getattr(engine, end)()
    again = start_joined_again(start_engine, engine)
    assert again.post("/infer", [{"tensor": [1.0, 2.0]}])[0] == 200
    (small_disk / "filler").unlink()
    eventually(lambda: sum(center.total()) == 2, 20)


def start_joined_again(start_engine, engine):
    return start_engine(**engine.env).ready(20)
