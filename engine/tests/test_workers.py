"""Processes beside the engine's own: the same answers, the same log, and nothing lost when one is killed."""

import asyncio
import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW, JSON, EngineProcess, eventually, in_a_loop
from engine.tests.fakes import models
from engine.tests.fakes.registry import publish
from engine.tests.test_main_job import V1, V2, start_joined
from opsengine import chunks, worker
from opsengine.errors import RegistryError
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.messages import Request
from opsengine.sharing import Sharing, Task
from opsengine.worker import Answerer
from opsengine.workers import DEPTH, Asked, Worker

ROWS = 2000  # more than a millisecond, so that workers come first
MANY = [{"tensor": [float(row), 0.5]} for row in range(ROWS)]
ASKED = {"content_type": JSON, "as_arrow": False, "query": "", "pipeline": None}


def workers_of(engine):
    return engine.get("/status.json")[1]["engine"]["workers"]["serving"]


def answered_by_workers(engine):
    return engine.get("/status.json")[1]["engine"]["workers"]["answered"]


def children(engine):
    """Processes that the engine started and that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = (folder / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
            if int(parent) == engine._process.pid and state != "Z":
                found.append(int(folder.name))
    return found


def start_with(start_engine, registry, center, count=1, **env):
    engine = start_joined(start_engine, registry, center, ENGINE_WORKERS=count, **env)
    eventually(lambda: workers_of(engine) == count, 60)
    return engine


class Load:
    """Callers that ask on and on, from threads."""

    def __init__(self, engine, callers=6):
        self.answers = []
        self._engine, self._stop = engine, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self):
        seen = answered_by_workers(self._engine)
        eventually(lambda: answered_by_workers(self._engine) > seen + 10, 60)

    def _run(self):
        while not self._stop.is_set():
            self.answers.append(self._engine.post("/infer", MANY))


# The process.


@pytest.fixture
def source(load_pipeline):
    return load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"])).source


def said(pieces):
    """Head and body of a message."""
    whole = b"".join(pieces)
    head, body = worker.LENGTHS.unpack_from(whole)
    start = worker.LENGTHS.size + head
    assert len(whole) == start + body
    return orjson.loads(whole[worker.LENGTHS.size : start]), whole[start:]


def test_answer_and_log_row_are_those_of_the_engine(source, infer):
    answerer = Answerer(source, 2**20, 2**16)
    expected = infer(MANY, ("by-two", "m1", models.scale(2.0), ["tensor"]))
    told, body = said(answerer.answer(ASKED, orjson.dumps(MANY)))
    answered = orjson.loads(body[told["record"] :])
    for rows in (expected, answered):
        for row in rows:
            del row["time"], row["time_ns" if "time_ns" in row else "metadata"]
    assert [row["out"] for row in answered] == [row["out"] for row in expected]
    chunk = chunks.unpacked(body[: told["record"]])
    assert (told["status"], chunk.count, chunk.kind.facts) == (200, ROWS, infer.logged[0].facts)
    (packed,) = chunks.pack(infer.logged)
    assert (chunk.values, chunk.kind.told) == (packed.values, packed.kind.told)


def test_fault_of_the_caller_comes_back_with_its_status(source):
    answerer = Answerer(source, 2**20, 2**16)
    told, body = said(answerer.answer(ASKED, b'[{"wrong": [1.0]}]'))
    assert (told["status"], body) == (400, b"") and 'Column "tensor" is missing' in told["error"]
    told, _ = said(answerer.answer(ASKED | {"content_type": "text/html"}, b"<html>"))
    assert told["status"] == 415
    assert said(answerer.answer(ASKED, orjson.dumps(MANY)))[0]["status"] == 200  # nothing is left of those


def test_rows_that_only_memory_can_hold_are_left_to_the_engine(source):
    table = pa.table({"tensor": pa.array([[1.0, 2.0]]), "other": pa.array([b"\xff"], pa.binary())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    answerer = Answerer(source, 2**20, 2**16)
    told, _ = said(answerer.answer(ASKED | {"content_type": ARROW}, sink.getvalue().to_pybytes()))
    assert told == {"again": True}


def test_pipeline_that_cannot_be_loaded_is_told(source, store):
    store.path(source.digest).unlink()
    with pytest.raises(RegistryError, match="not complete"):
        Answerer(source, 2**20, 2**16)


def test_python_step_is_held_once(load_pipeline):
    assert load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"])).may_be_held_again
    batching = {"config": {"tensor_fields": ["tensor"], "batching": {"max_rows": 8, "max_wait_us": 0}}}
    assert not load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"], batching)).may_be_held_again
    assert not load_pipeline(("by-two", "m1", models.scale(2.0), ["tensor"], {"accel": "cuda"})).may_be_held_again


# The line to it.


class Transport:
    def __init__(self):
        self.sent, self.is_closed = [], False

    def writelines(self, pieces):
        self.sent.append(b"".join(pieces))

    def close(self):
        self.is_closed = True


@pytest.fixture
def line():
    made = Worker(None, None, lambda line: None)
    made.connection_made(Transport())
    return made


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_messages_in_any_pieces_reach_those_who_asked_in_order(line, size):
    heard = []
    for number in range(DEPTH):
        line.ask({}, b"", Asked(lambda told, body, n=number: heard.append((n, told, body)), None))
    assert not line.is_free
    sent = b"".join(b"".join(worker.packed({"n": number}, b"x" * number * 5000)) for number in range(DEPTH))
    for at in range(0, len(sent), size):
        line.data_received(sent[at : at + size])
    assert heard == [(number, {"n": number}, b"x" * number * 5000) for number in range(DEPTH)]
    assert line.is_free


def test_line_that_is_to_end_answers_what_it_has_first(line):
    heard = []
    line.ask({}, b"", Asked(lambda *said: heard.append(said), None))
    line.end()
    assert not line._transport.is_closed and not line.is_free
    line.data_received(b"".join(worker.packed({}, b"answer")))
    assert heard == [({}, b"answer")] and line._transport.is_closed


def test_lost_line_gives_back_what_it_had(line):
    lost = []
    for number in range(DEPTH):
        line.ask({}, b"", Asked(None, lambda n=number: lost.append(n)))
    line.connection_lost(None)
    assert lost == list(range(DEPTH))


# Who takes which.


class Hands:
    """The server with one thread, and one worker that takes `room` requests."""

    def __init__(self, room=2):
        self.room, self.threads = room, 1
        self.answered, self.here, self.in_threads, self.asked = 0, [], [], []
        self.sharing = Sharing(self, self)

    def start(self, loop, on_free):
        pass

    serving = 1

    def free(self):
        return self if len(self.asked) < self.room else None

    def ask(self, told, body, asked):
        self.asked.append((told, asked))

    def told(self, task):
        return task.request.path

    def ran(self, task, line, told, body):
        if body == b"nonsense":
            raise ValueError("not a chunk")
        return told is not None

    def run_here(self, task):
        self.here.append(task.request.path)

    def run_in_thread(self, task):
        if not self.threads:
            return False
        self.threads -= 1
        self.in_threads.append(task.request.path)
        return True


def shared(check, **more):
    async def run():
        hands = Hands(**more)
        hands.sharing.start(asyncio.get_running_loop())
        await check(hands)

    in_a_loop(run())


def add(hands, *names, is_quick=True):
    for name in names:
        hands.sharing.add(Task(Request(path=name), None), is_quick=is_quick)


def test_single_quick_request_stays_in_the_loop():
    async def check(hands):
        add(hands, "a")
        await asyncio.sleep(0)
        assert (hands.here, hands.asked) == (["a"], [])

    shared(check)


def test_loop_runs_one_a_turn_and_workers_take_from_the_rest():
    async def check(hands):
        add(hands, "a", "b", "c", "d", "e")
        assert [told for told, _ in hands.asked] == ["a", "b"]
        await asyncio.sleep(0)
        assert hands.here == ["c"]
        hands.asked.pop(0)[1].ended({}, b"")  # now there is room for one more
        assert [told for told, _ in hands.asked] == ["b", "d"]
        await asyncio.sleep(0)
        assert hands.here == ["c", "e"]

    shared(check)


def test_long_requests_go_to_workers_then_to_threads_and_never_to_the_loop():
    async def check(hands):
        add(hands, "a", "b", "c", "d", is_quick=False)
        assert ([told for told, _ in hands.asked], hands.in_threads) == (["a", "b"], ["c"])
        hands.threads = 1
        hands.sharing.go_on()
        await asyncio.sleep(0)
        assert (hands.in_threads, hands.here) == (["c", "d"], [])

    shared(check)


def test_what_a_worker_lost_or_left_runs_in_threads_of_the_engine():
    async def check(hands):
        hands.threads = 0
        add(hands, "a", "b", "c", is_quick=False)
        (_, first), (_, second), (_, third) = hands.asked
        hands.asked.clear()
        hands.room = 0
        first.lost()
        second.ended(None, b"")
        third.ended({}, b"nonsense")
        hands.threads, hands.room = 3, 3
        hands.sharing.go_on()
        assert (hands.in_threads, hands.asked) == (["a", "b", "c"], [])

    shared(check, room=3)


# All of it.


def test_answers_of_all_kinds_are_those_of_an_engine_alone(start_engine, registry, center, tmp_path):
    engine = start_with(start_engine, registry, center)
    url = center.desired["pipeline_url"]
    (tmp_path / "alone").mkdir()
    alone = EngineProcess(tmp_path / "alone", PIPELINE_URL=url, OCI_REGISTRY=registry.host).start().ready()
    table = pa.table({"tensor": pa.FixedSizeListArray.from_arrays(np.arange(2.0 * ROWS, dtype=np.float32), 2)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = sink.getvalue().to_pybytes()
    requests = [
        ("/infer", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/pipelines/scale", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/infer?dataset[]=out", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/infer", arrow, {"Content-Type": ARROW}),
        ("/infer?dataset[]=nonsense", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/pipelines/other", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/pipelines/scale/more", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/nothing", orjson.dumps(MANY), {"Content-Type": JSON}),
        ("/infer", orjson.dumps(MANY), {"Content-Type": "text/html"}),
        ("/infer", orjson.dumps(MANY)[:-1], {"Content-Type": JSON}),
    ]
    try:
        for path, body, headers in requests:
            expected = alone.call("POST", path, body, headers)
            with ThreadPoolExecutor(6) as callers:  # by a worker or by the engine, whoever is free
                answers = list(callers.map(lambda asked: engine.call("POST", *asked), [(path, body, headers)] * 12))
            for got in answers:
                assert (got[0], got[1]["content-type"]) == (expected[0], expected[1]["content-type"])
                assert values(got[2]) == values(expected[2])
        assert engine.call("GET", "/infer", orjson.dumps(MANY))[0] == 405
        assert answered_by_workers(engine) > 0
        told = [one.get("/status.json")[1]["traffic"] for one in (engine, alone)]
        assert [told[0][name] for name in ("rows", "errors")] == [12 * told[1][name] for name in ("rows", "errors")]
    finally:
        alone.stop()


def values(body):
    """An answer without its times and where it was given."""
    told = orjson.loads(body)
    for row in told if isinstance(told, list) else ():
        for name in ("time", "metadata", "elapsed"):
            row.pop(name, None)
    return told


def test_killed_worker_costs_no_request_and_no_row_and_comes_again(start_engine, registry, center):
    engine = start_with(start_engine, registry, center)
    with Load(engine) as load:
        for _ in range(3):
            (child,) = eventually(lambda: workers_of(engine) == 1 and children(engine), 60)
            load.goes_on()
            os.kill(child, signal.SIGKILL)
            eventually(lambda gone=child: gone not in children(engine), 60)
        eventually(lambda: workers_of(engine) == 1, 60)
    assert {status for status, _ in load.answers} == {200}
    assert all([row["out"]["y"][0] for row in rows] == [2.0 * row for row in range(ROWS)] for _, rows in load.answers)
    eventually(lambda: center.total()[0] == ROWS * len(load.answers), 60)
    assert center.total() == (ROWS * len(load.answers), 0)
    assert "A worker was ended by signal SIGKILL" in engine.log


def test_kill_of_the_engine_loses_no_answered_row_and_ends_its_workers(start_engine, registry, center):
    engine = start_with(start_engine, registry, center, CHECKIN_SECONDS="60")
    (child,) = children(engine)
    for _ in range(20):
        assert engine.post("/infer", MANY)[0] == 200
    engine.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists(), 60)
    engine.start()
    engine.ready()
    eventually(lambda: center.total() == (20 * ROWS, 0), 60)


def test_workers_follow_an_update_and_mix_nothing(start_engine, registry, center):
    engine = start_with(start_engine, registry, center, count=2)
    before = children(engine)
    with Load(engine) as load:
        url, digest = publish(registry, "scale-new", V2, [("by-nine", "m2", models.scale(9.0), ["tensor"])])
        with center.lock:
            center.wish("scale-new", V2, url, digest, publish_id=13)
        eventually(lambda: center.serving == digest, 60)
        eventually(lambda: workers_of(engine) == 2, 60)
        load.goes_on()
    assert {status for status, _ in load.answers} == {200}
    told = {(row["out"]["y"][1], row["metadata"]["pipeline_version"]) for _, rows in load.answers for row in rows}
    assert told == {(1.0, V1), (4.5, V2)}
    assert all(len({row["metadata"]["pipeline_version"] for row in rows}) == 1 for _, rows in load.answers)
    eventually(lambda: len(children(engine)) == 2 and not set(children(engine)) & set(before), 60)
    eventually(lambda: center.total()[0] == ROWS * len(load.answers), 60)


def test_orderly_end_takes_the_workers_along(start_engine, registry, center):
    engine = start_with(start_engine, registry, center, count=2)
    found = children(engine)
    assert len(found) == 2
    assert engine.stop() == 0
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in found), 60)


def test_worker_that_cannot_be_started_is_told_once_in_a_while_and_not_needed(registry, start_engine, tmp_path):
    url, _ = publish(registry, "scale", V1, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    engine = start_engine(PIPELINE_URL=url, OCI_REGISTRY=registry.host, ENGINE_WORKERS=1).ready()
    eventually(lambda: workers_of(engine) == 1, 60)
    blobs = list((tmp_path / "persist" / "store" / "blobs" / "sha256").iterdir())
    for blob in blobs:
        blob.write_bytes(b"damaged")
    (child,) = children(engine)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: "A worker cannot be started" in engine.log, 60)
    assert workers_of(engine) == 0
    assert engine.post("/infer", MANY)[0] == 200


def test_workers_see_no_secret_of_the_engine(start_engine, registry, center):
    engine = start_with(start_engine, registry, center)
    (child,) = children(engine)
    told = Path(f"/proc/{child}/environ").read_bytes() + Path(f"/proc/{child}/cmdline").read_bytes()
    assert b"EDGE_BUNDLE" not in told and b"JOIN_TOKEN" not in told


def test_packed_rows_survive_a_kill(tmp_path, load_pipeline, infer):
    infer(MANY, ("by-two", "m1", models.scale(2.0), ["tensor"]))
    (packed,) = chunks.pack(infer.logged)
    store = LogStore(tmp_path / "rows.sqlite", 2**26)
    LogWriter(store, tmp_path / "taken").take_packed(
        b"".join(chunks.packed_bytes(packed))
    )  # never started: as if killed
    LogWriter(store, tmp_path / "taken")
    assert store.position.last == ROWS
    store.close()
