"""The local log: numbers without holes, a cap that is kept, and nothing lost uncounted."""

import os
import shutil
import sqlite3
import struct
import threading
import uuid
import zlib
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pytest

from engine.tests.conftest import eventually
from opsengine import app, chunks, journal, logpages
from opsengine import logwriter as writing
from opsengine.errors import StateError
from opsengine.logfile import JOURNAL_ROOM, LogFile
from opsengine.logstore import Gap, LogStore, Lost, Shipment
from opsengine.logwriter import LogWriter
from opsengine.messages import Request
from opsengine.rows import Answering, Facts, Result, from_batch, of_result, to_batch
from opsengine.views import Views

FACTS = Facts("p", "3b49fba8-94d8-4fca-aecc-c75257fd16c6", "{}", "m", "m1", "edge-1")
CAP = 8 * 2**20


def result(*values, moment=1000, facts=FACTS, width=1, **inputs):
    numbers = np.array([[value] * width for value in values], dtype=np.float32)
    return Result(facts, moment, len(values), {"x": numbers, **inputs}, {"y": numbers[:, 0]}, (5, 7))


def page(*values, **more):
    return one_page(result(*values, **more))


def noisy_page(noise, **more):
    """100 rows that do not compress."""
    return page(*range(100), x=noise.random((100, 50), dtype=np.float32), **more)


def one_page(made):
    (only,) = logpages.of_chunks(list(chunks.pack([made])))
    return only


def values(shipment):
    return [value for batch in shipment.batches for value in batch.column("out").field("y").to_pylist()]


@pytest.fixture
def make(tmp_path):
    opened = []

    def open_store(cap=CAP):
        store = LogStore(tmp_path / "logs" / "rows.sqlite", cap)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def log(make):
    return make()


def test_rows_are_numbered_from_one_and_sent_in_order(log):
    assert log.append([page(1, 2, 3), page(4, 5)]) == 5
    found = log.next(1000)
    assert (found.first, found.pipeline_version, values(found)) == (1, FACTS.version, [1, 2, 3, 4, 5])
    log.acknowledge(4)
    assert (log.next(1000).first, values(log.next(1000))) == (5, [5])
    log.acknowledge(5)
    assert log.next(1000) is None


def test_shipment_has_at_most_the_rows_asked_for(log):
    log.append([page(*range(1, 11))])
    sent = []
    while shipment := log.next(3):
        sent.append(values(shipment))
        log.acknowledge(shipment.first + shipment.count - 1)
    assert sent == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]


def test_shipment_is_of_one_schema_and_one_pipeline_version(log):
    other = replace(page(3), pipeline_version="2e78349c-d282-41c9-a435-0c943c3accf1")
    log.append([page(1), page(2, note=["a"]), other])
    versions = []
    for _ in range(3):
        shipment = log.next(1000)
        assert shipment.count == 1
        versions.append(shipment.pipeline_version)
        log.acknowledge(shipment.first)
    assert versions == [FACTS.version, FACTS.version, other.pipeline_version]


def test_rows_survive_a_new_start(make):
    store = make()
    store.append([page(1, 2)])
    store.acknowledge(1)
    before = store.position
    store.close()
    again = make()
    assert again.position == before
    assert values(again.next(10)) == [2]


def test_lost_rows_become_a_gap(log):
    log.append([page(1, 2)], Lost(3, 500, 600, "queue_full"))
    log.append([page(6)])
    log.acknowledge(2)
    gap = log.next(10)
    assert gap == Gap(3, 5, 500, 600, "queue_full", log.position.epoch)
    assert log.position.shed == 3
    log.acknowledge(5, gap)
    assert values(log.next(10)) == [6]
    assert log.position.shed == 3


def test_cap_drops_acknowledged_rows_first(make):
    store = make(2**20)
    noise = np.random.default_rng(1)
    for _ in range(10):
        store.append([noisy_page(noise)])
    store.acknowledge(900)
    for _ in range(300):
        last = store.append([noisy_page(noise)])
        store.acknowledge(last - 100)
    assert store.used <= 2**20
    assert store.position.shed == 0
    assert store.next(10).first == last - 99


@pytest.mark.parametrize("cap", [2**20, 2**22, 2**24])
def test_a_request_longer_than_the_cap_keeps_to_it_and_leaves_its_newest_rows(make, tmp_path, cap):
    count = 2 * cap // 800
    store, numbers = make(cap), np.random.default_rng(0).random((count, 200), dtype=np.float32)  # do not compress
    writer = LogWriter(store, tmp_path / "logs" / "taken")
    writer.start()
    for _ in range(3):
        writer.put(Result(FACTS, 1000, count, {"x": numbers}, {"y": np.arange(count)}, (5, 7)))
        assert writer.flush(20)
    writer.stop()
    kept = [value for batch in store.newest(3 * count) for value in batch.column("out").field("y").to_pylist()]
    newest = count // 16
    assert kept[-newest:] == list(range(count - newest, count))
    assert (store.position.last, store.position.shed) == (3 * count, 3 * count - len(kept))
    assert store.used <= cap


def test_cap_that_costs_unacknowledged_rows_leaves_one_gap(make):
    store = make(2**20)
    noise = np.random.default_rng(1)
    for turn in range(300):
        last = store.append([noisy_page(noise, moment=1000 + turn)])
    assert store.used <= 2**20
    gap = store.next(1000)
    assert isinstance(gap, Gap) and gap.first == 1 and gap.reason == "storage_limit"
    assert gap.time_min == 1000 and gap.time_max == 1000 + gap.last // 100 - 1
    assert store.position.shed == gap.last
    store.acknowledge(gap.last, gap)
    kept = 0
    while shipment := store.next(1000):
        assert isinstance(shipment, Shipment)
        kept += shipment.count
        store.acknowledge(shipment.first + shipment.count - 1)
    assert kept + gap.last == last == 30_000


def rows_of(store, limit):
    return [row for batch in store.newest(limit) for row in batch.to_pylist()]


def new_columns(start, count):
    """Pages that nobody sent the like of: each has a column of its own."""
    return [page(value, **{f"column-{value}" + "x" * 400: np.zeros(1)}) for value in range(start, start + count)]


def kinds(path):
    with closing(sqlite3.connect(path)) as db:
        lost = db.execute("SELECT count(*) FROM page WHERE kind NOT IN (SELECT id FROM kind)").fetchone()
        assert lost == (0,), "pages without their description"
        return db.execute("SELECT count(*) FROM kind").fetchone()[0]


@pytest.mark.parametrize("is_acknowledged", [True, False])
@pytest.mark.parametrize("at_once", [5, 50])
def test_ever_new_columns_keep_to_the_cap(make, tmp_path, at_once, is_acknowledged):
    store, folder = make(2**20), tmp_path / "logs"
    for start in range(0, 1000, at_once):
        last = store.append(new_columns(start, at_once))
        if is_acknowledged:
            store.acknowledge(last)
        assert store.used <= 2**20
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 2**20
    kept = [row["out"]["y"] for row in rows_of(store, 1000)]
    assert 100 < len(kept) < 1000 and kept == list(range(1000))[-len(kept) :]
    assert store.position.shed <= (0 if is_acknowledged else 1000 - len(kept))
    store.close()
    assert kinds(folder / "rows.sqlite") <= 2 * len(kept)


def test_ever_new_columns_keep_to_the_cap_whenever_the_engine_starts(make, tmp_path):
    for start in range(0, 2000, 20):
        store = make(2**20)
        store.append(new_columns(start, 20))
        assert store.used <= 2**20
        store.close()
    assert kinds(tmp_path / "logs" / "rows.sqlite") < 1000


def test_columns_that_come_again_are_described_again(make):
    store, noise = make(2**20), np.random.default_rng(1)
    for turn in range(4):
        for at in range(0, 200, 20):
            store.append(new_columns(at, 20))
        assert [row["in"][f"column-{at}" + "x" * 400] for at, row in enumerate(rows_of(store, 200))] == [0.0] * 200, (
            turn
        )
        for _ in range(50):
            last = store.append([noisy_page(noise)])
        store.acknowledge(last)
        left = store._file.db.execute("SELECT count(*) FROM kind").fetchone()[0]
        assert left < 200, "or they would not have to be described again"


def test_descriptions_that_an_engine_before_left_behind_go_and_cost_no_rows(make, tmp_path):
    store, path = make(2**20), tmp_path / "logs" / "rows.sqlite"
    store.append([page(1, 2, 3)])
    store.close()
    with closing(sqlite3.connect(path)) as db, db:
        left = ((FACTS.version, os.urandom(1000)) for _ in range(2000))
        db.executemany("INSERT INTO kind (version, schema) VALUES (?, ?)", left)
    assert path.stat().st_size > 2 * 2**20
    store = make(2**20)
    journals = []
    for value in range(4, 200):
        store.append([page(value)])
        journals.append(path.with_name("rows.sqlite-wal").stat().st_size)
    assert store.used <= 2**20
    assert max(journals) <= 2**20 // 4
    assert values(store.next(1000)) == list(range(1, 200)) and store.position.shed == 0


def test_a_kill_while_descriptions_go_leaves_all_pages_with_theirs(make, tmp_path, monkeypatch):
    store, folder, found = make(2**20), tmp_path / "logs", []
    committed = store._file.committed

    @contextmanager
    def killed_behind():
        with committed():
            yield
        shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        found.append(kinds(tmp_path / "copy" / "rows.sqlite"))

    monkeypatch.setattr(store._file, "committed", killed_behind)
    for start in range(0, 1000, 50):
        store.append(new_columns(start, 50))
    assert len(found) > 30 and min(after - before for before, after in pairwise(found)) < 0, "in several steps"


def test_a_description_that_is_too_long_is_a_gap_and_costs_no_other_rows(log):
    log.append([page(1, 2)])
    log.append([page(3), page(4, **{"long" * 2**20: np.zeros(1)}), page(5)])
    assert values(log.next(10)) == [1, 2, 3]
    log.acknowledge(3)
    assert log.next(10) == Gap(4, 4, 1000, 1000, "storage_limit", log.position.epoch)
    log.acknowledge(4)
    assert values(log.next(10)) == [5]


def test_to_find_what_is_sent_next_takes_no_longer_behind_many_pages(log):
    def steps():
        counted = []
        log._file.db.set_progress_handler(lambda: counted.append(1), 1)
        assert log.next(1) is not None
        log._file.db.set_progress_handler(None, 1)
        return len(counted)

    log.append([page(1), page(2)])
    few = steps()
    log.append([page(value) for value in range(500)])
    log.acknowledge(500)
    assert steps() <= few + 20


def test_gap_that_was_in_flight_after_all_is_not_counted_as_shed(log):
    log.append([page(1, 2, 3)])
    log.give_up(1, 3, "storage_limit")
    assert log.position.shed == 3
    log.acknowledge(3)
    assert log.position.shed == 0
    assert log.next(10) is None


def test_given_up_rows_are_told_but_still_readable(log):
    log.append([page(1, 2, 3, 4)])
    log.give_up(2, 3, "refused_invalid_page")
    assert values(log.next(10)) == [1]
    log.acknowledge(1)
    assert log.next(10) == Gap(2, 3, 1000, 1000, "refused_invalid_page", log.position.epoch)
    log.acknowledge(3)
    assert values(log.next(10)) == [4]
    assert sum(batch.num_rows for batch in log.newest(100)) == 4


def test_rows_that_were_given_up_are_counted_once_when_they_go_for_want_of_room(make):
    store, noise = make(2**20), np.random.default_rng(1)
    for _ in range(10):
        store.append([noisy_page(noise)])
    store.give_up(1, 250, "refused_invalid_page")
    store.give_up(251, 350, "refused_too_large")
    for _ in range(50):
        last = store.append([noisy_page(noise)])
    first, told = 1, []
    while isinstance(gap := store.next(1), Gap):
        told.append((gap.first, gap.last))
        first = gap.last + 1
        store.acknowledge(gap.last, gap)
    assert [start for start, _ in told] == [1, *(end + 1 for _, end in told[:-1])]
    kept = sum(batch.num_rows for batch in store.newest(10_000))
    assert first - 1 == store.position.shed == last - kept


def test_center_that_lost_rows_gets_them_again(log):
    log.append([page(1, 2), page(3, 4)])
    log.acknowledge(4)
    log.resync(2)
    assert (log.next(10).first, values(log.next(10))) == (2, [2, 3, 4])


def test_center_that_lost_rows_which_are_gone_gets_a_gap(make):
    store = make(2**20)
    noise = np.random.default_rng(1)
    for _ in range(400):
        last = store.append([noisy_page(noise)])
        store.acknowledge(last)
    store.resync(1)
    gap = store.next(1000)
    assert isinstance(gap, Gap) and (gap.first, gap.reason) == (1, "no_longer_stored")
    store.acknowledge(gap.last, gap)
    assert store.next(1000).first == gap.last + 1


def test_new_epoch_renumbers_what_was_not_acknowledged(log):
    before = log.position.epoch
    log.append([page(1, 2, 3)], Lost(2, 5, 6, "queue_full"))
    log.append([page(6, 7)])
    log.acknowledge(2)
    log.begin_epoch(owner="edge-b")
    assert log.position.epoch != before
    assert (log.position.last, log.position.acked, log.position.shed, log.owner) == (5, 0, 2, "edge-b")
    assert (log.next(10).first, values(log.next(10))) == (1, [3])
    log.acknowledge(1)
    assert log.next(10) == Gap(2, 3, 5, 6, "queue_full", log.position.epoch)
    log.acknowledge(3)
    assert (log.next(10).first, values(log.next(10))) == (4, [6, 7])
    assert sum(batch.num_rows for batch in log.newest(100)) == 5


def test_newest_rows_oldest_first(log):
    log.append([page(1, 2, moment=10), page(3, 4, moment=20), page(5, 6, moment=30)])
    found = [value for batch in log.newest(3) for value in batch.column("out").field("y").to_pylist()]
    assert found == [4, 5, 6]
    within = log.newest(10, 10, 30)
    assert [row for batch in within for row in from_batch(batch).groups["out"]["y"].tolist()] == [1, 2, 3, 4]


def test_newest_rows_end_where_they_take_the_memory_they_may(log):
    log.append([page(n, n, width=1000) for n in range(10)])
    two = sum(batch.nbytes for batch in log.newest(4))
    assert [batch.num_rows for batch in log.newest(20, room=two)] == [2, 2]
    assert [batch.num_rows for batch in log.newest(20, room=1)] == [2]
    assert sum(batch.num_rows for batch in log.newest(20)) == 20


def test_answer_of_the_log_that_was_cut_short_says_so(log, make_writer, monkeypatch):
    log.append([page(n, n, moment=n, width=1000) for n in range(10)])
    views = Views(dict, bytes)
    served = app.App(None, None, (log, make_writer()), views, 1)

    def asked(body):
        reply = served.respond(Request(method="POST", path="/logs", body=body))
        return [row["time"] for row in orjson.loads(reply.body)], reply.headers

    assert asked(b"{}") == ([n for n in range(10) for _ in range(2)], ())
    monkeypatch.setattr(app, "MOST_LOG_BYTES", sum(batch.nbytes for batch in log.newest(6)))
    assert asked(b"{}") == ([7, 7, 8, 8, 9, 9], (("Log-Status", "ByteLimited"),))
    assert asked(b'{"end": 7}') == ([4, 4, 5, 5, 6, 6], (("Log-Status", "ByteLimited"),))
    assert asked(b'{"limit": 6}') == ([7, 7, 8, 8, 9, 9], ())


def test_damaged_file_does_not_stop_the_engine(make, tmp_path):
    path = tmp_path / "logs" / "rows.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all" * 1000)
    store = make()
    assert store.append([page(1)]) == 1
    assert path.with_name("rows.sqlite.damaged").exists()


def test_damaged_file_on_a_disk_that_takes_no_new_one_is_told_in_a_sentence(make, tmp_path, monkeypatch):
    path = tmp_path / "logs" / "rows.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all" * 1000)
    whole = LogFile._open

    def full(file):
        if not path.exists():
            raise sqlite3.OperationalError("database or disk is full")
        whole(file)

    monkeypatch.setattr(LogFile, "_open", full)
    with pytest.raises(StateError, match=r"cannot be opened \(database or disk is full\): check the disk"):
        make()


def test_cap_that_is_lowered_holds_for_a_log_that_is_there(make, tmp_path):
    noise = np.random.default_rng(1)
    store = make(32 * 2**20)
    for _ in range(600):
        store.append([noisy_page(noise)])
    store.set_owner("edge-1")
    before = store.position
    store.close()
    path = tmp_path / "logs" / "rows.sqlite"
    for tail in journal.paths(path.parent):
        tail.write_bytes(bytes(2**20))
    assert path.stat().st_size > 2**23
    cap = 2**21
    store = make(cap)
    writer = LogWriter(store, path.parent / "taken")
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= cap
    assert (store.position.epoch, store.position.last, store.owner) == (before.epoch, before.last, "edge-1")
    assert isinstance(store.next(10), Gap) and store.newest(10)[0].num_rows == 10
    assert store.append([page(1)]) == before.last + 1
    writer.stop()


def damage(store, table="page"):
    """Have the first piece of a table be nothing that SQLite knows, as a disk may that fails."""
    size = store._file.value("PRAGMA page_size")
    root = store._file.value(f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")
    path = store._file.path
    store.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


def test_damage_that_is_found_later_does_not_stop_the_log(make, tmp_path):
    store = make()
    store.append([page(1, 2)])
    store.set_owner("edge-1")
    before = store.position.epoch
    damage(store)
    store = make()
    writer = LogWriter(store, tmp_path / "taken")
    writer.start()
    writer.put(result(3, 4, 5))
    eventually(lambda: store.position.last == 3)
    assert store.position.epoch != before and store.owner == "edge-1" and writer.fault is None
    assert values(store.next(10)) == [3, 4, 5]
    assert (tmp_path / "logs" / "rows.sqlite.damaged").exists()
    writer.stop()


@pytest.mark.parametrize(
    ("where", "fault"),
    [((LogFile, "_open"), sqlite3.OperationalError("disk I/O error")), ((Path, "replace"), OSError("disk I/O error"))],
    ids=["new file", "old file"],
)
def test_damaged_log_on_a_disk_that_takes_no_new_one_is_told_and_tried_again(make, tmp_path, monkeypatch, where, fault):
    store = make()
    store.append([page(1, 2)])
    before = store.position
    damage(store)
    store = make()

    def refuse(*_):
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(*where, refuse)
        writer = LogWriter(store, tmp_path / "taken")
        writer.start()
        writer.put(result(3))
        eventually(lambda: writer.fault and "disk I/O error" in writer.fault)
        assert store.position == before and isinstance(store.used, int)
    eventually(lambda: store.position.last == 1)
    writer.stop()


def test_page_that_is_damaged_is_told_as_a_gap(log):
    log.append([page(1, 2)])
    log.append([page(3, 4)])
    log.append([page(5)])
    log._file.db.execute("UPDATE page SET body = x'00ff00ff' WHERE first = 3")
    assert values(log.next(10)) == [1, 2]
    log.acknowledge(2)
    lost = log.next(10)
    assert (lost.first, lost.last, lost.reason) == (3, 4, "damaged") and log.next(10) == lost
    log.acknowledge(4, lost)
    assert values(log.next(10)) == [5] and log.position.shed == 2
    assert [batch.num_rows for batch in log.newest(10)] == [2, 1]


@pytest.fixture
def make_writer(log, tmp_path):
    started = []

    def start():
        writer = LogWriter(log, tmp_path / "taken")
        writer.start()
        started.append(writer)
        return writer

    yield start
    for writer in started:
        writer.stop()


def test_rows_are_on_disk_soon_without_anybody_asking(log, make_writer):
    assert writing.GATHER_SECONDS <= 0.1  # with the write itself: the 200 ms that are promised
    make_writer().put(result(1, 2))
    eventually(lambda: log.position.last == 2, 60)


def test_small_requests_become_one_page(log, make_writer):
    writer = make_writer()
    for value in range(500):
        writer.put(result(value, moment=value))
    assert writer.flush(5)
    batches = log.next(1000).batches
    assert sum(batch.num_rows for batch in batches) == 500
    assert len(batches) <= 10
    assert [time for batch in batches for time in batch.column("time").cast("int64").to_pylist()] == list(range(500))


def test_uneven_unused_column_is_named_as_dropped(log, make_writer):
    writer = make_writer()
    writer.put(result(1, 2, odd=[1, "two"]))
    assert writer.flush(5)
    rows = log.next(10).batches[0].to_pylist()
    assert [row["in"] for row in rows] == [{"x": [1.0]}, {"x": [2.0]}]
    assert [row["metadata"]["dropped"] for row in rows] == [["odd"], ["odd"]]


def test_full_queue_loses_rows_but_not_their_count(log, tmp_path, monkeypatch):
    monkeypatch.setattr(LogStore, "queue_bytes", 1000)
    writer = LogWriter(log, tmp_path / "taken")  # not started: nothing drains the queue
    for value in range(100):
        writer.put(result(value, width=10))
    writer.start()
    assert writer.flush(5)
    writer.stop()
    position = log.position
    assert position.last == 100
    assert 0 < position.shed < 100
    kept = log.next(1000).count
    assert kept + position.shed == 100


def test_rows_answered_just_before_a_kill_are_stored_at_the_next_start(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")  # never started: as if killed before the first write
    for value in range(7):
        writer.put(result(value))
    LogWriter(log, tmp_path / "taken")
    assert values(log.next(10)) == list(range(7))
    assert log.position.shed == 0


def test_results_that_are_settled_together_are_one_record_and_survive_a_kill_whole(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")
    for value in range(16):
        writer.take(result(value, value + 0.5, moment=value))
    assert (tmp_path / "tail-0").stat().st_size == 0, "nothing is written before it is asked for"
    writer.settle()
    content = (tmp_path / "tail-0").read_bytes()
    (length,) = struct.unpack_from("<I", content, 4)
    assert len(content) == journal.HEAD.size + length + len(journal.END)
    LogWriter(log, tmp_path / "taken")
    (batch,) = log.next(100).batches
    rows = batch.to_pylist()
    assert [row["out"]["y"] for row in rows] == [value / 2 for value in range(32)]
    assert [row["metadata"]["elapsed"] for row in rows] == [[5, 7]] * 32
    assert batch.column("time").cast("int64").to_pylist() == [moment for moment in range(16) for _ in "ab"]


def test_all_that_a_result_may_hold_survives_a_kill(log, tmp_path):
    arm = Answering('{"model_name":"m"}', "m", "m1", "{}")
    made = result(1, 2, facts=FACTS._replace(arms=(arm, arm._replace(last_model="{2}"))), text=["a", None])
    made.inputs["words"] = np.array([["b"], ["c"]], dtype=object)
    made.inputs["empty"] = np.zeros((2, 0, 3), dtype=np.int64)
    made.checks["low"] = np.array([True, False])
    made.recorded["shadow"] = {"y": np.array([[[1]], [[2]]], dtype=np.int8)}
    made.arms = np.array([1, 0])
    made.dropped = ("image",)
    expected = to_batch(of_result(made))
    writer = LogWriter(log, tmp_path / "taken")
    for one in (made, result(3), made):
        writer.take(one)
    writer.settle()
    LogWriter(log, tmp_path / "taken")
    rows = [row for batch in log.newest(100) for row in batch.to_pylist()]
    assert [row for row in rows if row["in"]["x"] != [3.0]] == 2 * expected.to_pylist()
    assert len(rows) == 5


def test_a_record_of_another_format_is_told_as_a_gap(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")
    writer.put(result(1))
    body = struct.pack("<I", 4) + b"[{}]"
    tail = struct.pack("<IQ16s", len(body), 2, uuid.UUID(log.position.epoch).bytes)
    path = tmp_path / "tail-0"
    record = struct.pack("<I", zlib.crc32(tail + body)) + tail + body
    path.write_bytes(path.read_bytes().removesuffix(journal.END) + record)
    writer._counter.write(uuid.UUID(log.position.epoch).bytes, 2)
    LogWriter(log, tmp_path / "taken")
    assert (log.position.last, log.position.shed, values(log.next(10))) == (2, 1, [1])


def test_rows_that_were_stored_are_not_stored_again_from_the_journal(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")
    writer.start()
    writer.put(result(1))
    assert writer.flush(5)
    left = [(tmp_path / name).read_bytes()[: len(journal.END)] for name in ("tail-0", "tail-1")]
    writer.put(result(2))
    assert writer.flush(5)
    writer.stop()
    LogWriter(log, tmp_path / "taken")
    assert values(log.next(10)) == [1, 2]
    assert not any(b"".join(left)), "what is stored need not stay in the journal"


def test_what_stands_behind_the_end_of_the_journal_is_not_read(log, tmp_path, caplog):
    """A file is written from its beginning again, over longer records of rows that were stored before."""
    writer = LogWriter(log, tmp_path / "taken")
    for value in range(20):
        writer.put(result(value, value, value))
    writer.start()
    assert writer.flush(5)
    writer.stop()
    writer = LogWriter(log, tmp_path / "taken")
    before = (tmp_path / "tail-0").stat().st_size
    writer.put(result(20))
    writer.put(result(21))
    assert (tmp_path / "tail-0").stat().st_size == before > 2000, "it is written over"
    LogWriter(log, tmp_path / "taken")
    assert values(log.next(100)) == [value for value in range(20) for _ in range(3)] + [20, 21]
    assert (log.position.shed, caplog.text) == (0, "")


def test_a_record_that_had_no_room_takes_none_of_the_next_ones(log, tmp_path, monkeypatch, caplog):
    writer = LogWriter(log, tmp_path / "taken")
    writer.put(result(0))
    write = os.pwritev

    def short(file, pieces, at):
        return write(file, [b"".join(pieces)[:-20]], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", short)
        writer.put(result(1))
    writer.put(result(2))
    assert "journal cannot be written ([Errno 28] No space left on device)" in caplog.text
    LogWriter(log, tmp_path / "taken")
    assert values(log.next(100)) == [0, 2]
    assert (log.position.last, log.position.shed) == (3, 1)


def test_an_emptied_journal_keeps_some_of_its_room_only(log, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "KEPT_BYTES", 1000)
    writer = LogWriter(log, tmp_path / "taken")
    for value in range(50):
        writer.put(result(value))
    assert (tmp_path / "tail-0").stat().st_size > 2000
    writer.start()
    assert writer.flush(5)
    writer.stop()
    assert (tmp_path / "tail-0").stat().st_size == 1000


@pytest.fixture
def slow(log, tmp_path, monkeypatch):
    """A writer in the middle of its first write, and what ends that."""
    begun, ending, append = threading.Event(), threading.Event(), log.append

    def waiting(*given):
        begun.set()
        ending.wait(10)
        return append(*given)

    monkeypatch.setattr(log, "append", waiting)
    writer = LogWriter(log, tmp_path / "taken")
    writer.start()
    writer.put(result(1))
    assert begun.wait(10)
    return writer, ending


def test_rows_that_come_while_a_write_is_under_way_are_written_at_the_end(log, slow):
    writer, ending = slow
    writer.put(result(2))
    timer = threading.Timer(0.3, ending.set)
    timer.start()
    writer.stop()
    assert log.position.last == 2


def test_write_that_takes_longer_than_the_end_waits_keeps_its_files(log, slow, caplog):
    writer, ending = slow
    writer.stop(0.01)
    ending.set()
    writer._thread.join(10)
    assert (log.position.last, caplog.text) == (1, "")


def test_a_new_epoch_takes_the_journal_along(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")
    writer.put(result(1, 2))
    writer.begin_epoch()
    writer.put(result(3))
    LogWriter(log, tmp_path / "taken")
    assert values(log.next(10)) == [1, 2, 3]


def test_rows_that_a_power_cut_took_from_the_journal_are_counted_at_the_next_start(log, tmp_path):
    writer = LogWriter(log, tmp_path / "taken")
    for value in range(7):
        writer.put(result(value))
    for path in (tmp_path / "tail-0", tmp_path / "tail-1"):
        path.write_bytes(b"")
    LogWriter(log, tmp_path / "taken")
    gap = log.next(10)
    assert (gap.first, gap.last, gap.reason, log.position.last) == (1, 7, "cut_off", 7)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_journal_gives_what_is_whole_and_counts_the_rest(log, tmp_path, damage):
    writer = LogWriter(log, tmp_path / "taken")
    for value in range(7):
        writer.put(result(value))
    path = next(path for path in (tmp_path / "tail-0", tmp_path / "tail-1") if path.stat().st_size)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-len(journal.END) - 3 :]
    else:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    LogWriter(log, tmp_path / "taken")
    kept = values(log.next(10))
    assert kept == list(range(len(kept))) and 0 < len(kept) < 7
    assert (log.position.last, log.position.shed) == (7, 7 - len(kept))


def test_failing_disk_delays_rows_and_loses_none(log, make_writer, monkeypatch):
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.05)
    whole, failures = log.append, [2]

    def failing(pages, lost=None):
        if failures[0]:
            failures[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        return whole(pages, lost)

    monkeypatch.setattr(log, "append", failing)
    writer = make_writer()
    writer.put(result(1, 2, 3))
    assert writer.flush(5)
    assert values(log.next(10)) == [1, 2, 3]


@pytest.mark.parametrize("cap", [2**20, 2**25, 2**27])
def test_sqlites_own_journal_keeps_to_its_room(make, tmp_path, cap):
    store, room = make(cap), min(cap // 4, JOURNAL_ROOM)
    numbers = np.random.default_rng(1).normal(size=(100, room // 4000)).astype(np.float32)
    made = Result(FACTS, 1000, 100, {"x": numbers}, {"y": numbers[:, 0]}, (5, 7))
    sizes = []
    for _ in range(60):
        store.append([one_page(made)])
        sizes.append((tmp_path / "logs" / "rows.sqlite-wal").stat().st_size)
    assert max(sizes) <= room
    assert min(sizes[30:]) > room // 4, "it is written over, not cut off"
    assert store.used <= cap


def test_journal_counts_into_the_cap_and_is_bounded_by_it(make, tmp_path):
    store = make(2**20)
    writer = LogWriter(store, tmp_path / "logs" / "taken")  # not started: the disk stands still
    empty = store.used
    for value in range(5000):
        writer.put(result(*[value] * 10))
    tails = sum(path.stat().st_size for path in (tmp_path / "logs").glob("tail-*"))
    assert 2**14 < tails <= 2**16
    assert store.used >= empty + tails
    writer.start()
    assert writer.flush(10)
    writer.stop()
    position = store.position
    assert position.last == 50_000 and 0 < position.shed < 50_000  # what had no room is counted
    assert store.used <= 2**20
