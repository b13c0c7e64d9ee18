"""Callers that send their bodies slowly: what they take of the engine, and for how long."""

import random
import socket
import sys
import time
from contextlib import ExitStack

import pytest

from engine.tests.conftest import EngineProcess, in_a_loop
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish
from engine.tests.test_http1 import BODY, CHUNKED, LIMIT, VERSION, Door, answers, chunk, infer, opened
from opsengine import http1
from opsengine.gate import KEPT

MANY = 900  # fourteen times the places of an engine
SMALL = infer(b"x" * 100)
HEAD = infer(b"x" * 400)[:-400]
BEGUN = {"head": HEAD, "half": HEAD + b"x" * 200, "chunked": CHUNKED, "half, chunked": CHUNKED + chunk(b"x" * 200)}


def is_fine(wire):
    return wire.written.count(b"HTTP/1.1 200") == 1 and b"HTTP/1.1 429" not in wire.written


@pytest.mark.parametrize("begun", BEGUN.values(), ids=BEGUN)
def test_slow_senders_take_no_place_of_quick_ones(begun):
    door = Door(budget=2 * LIMIT * 10)
    slow = [opened(door) for _ in range(MANY)]
    for connection, _ in slow:
        connection.data_received(begun)
    for _ in range(10):
        quick, wire = opened(door)
        quick.data_received(SMALL)
        assert is_fine(wire)
        in_two, wire = opened(door)
        in_two.data_received(SMALL[:-100])
        in_two.data_received(SMALL[-100:])
        assert is_fine(wire)
    coming = sum(b"x" in begun for _ in slow) * 200
    assert door.counted == (0, coming, coming) and not any(wire.written for _, wire in slow)
    for connection, _ in slow:
        connection.connection_lost(None)
    assert door.counted == (0, 0, 0)


def test_slow_senders_are_answered_when_they_get_there():
    door = Door(budget=2 * LIMIT)
    slow = [opened(door) for _ in range(100)]
    for place in range(0, 400, 50):
        for connection, _ in slow:
            connection.data_received((b"" if place else HEAD) + b"x" * 50)
    assert all(is_fine(wire) for _, wire in slow)
    assert (door.ran, door.counted) == ([400] * 100, (0, 0, 0))


def test_bytes_of_slow_senders_are_bounded_and_the_last_of_all_are_not_theirs():
    door = Door(budget=80_000)
    slow = [opened(door) for _ in range(10)]
    for connection, _ in slow:
        connection.data_received(infer(b"x" * 40_000)[:-40_000])
    for _ in range(7):
        for connection, _ in slow:
            connection.data_received(b"x" * 1000)
    assert door.counted == (0, 70_000, 70_000) and 80_000 - 80_000 // KEPT == 70_000
    refused, wire = slow[0]
    refused.data_received(b"x")  # too much: it is told so when its body has ended, and holds nothing any more
    assert door.counted == (0, 63_000, 63_000)
    refused.data_received(b"x" * 20_000)
    slow[1][0].data_received(b"x" * 7_001)
    assert door.counted == (0, 56_000, 56_000) and not wire.written
    quick, wire = opened(door)
    quick.data_received(infer(b"x" * 24_000))
    assert is_fine(wire)
    for (connection, wire), rest in zip(slow[:2], (12_999, 25_999), strict=True):
        connection.data_received(b"x" * rest)
        assert wire.written.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in wire.written
        connection.data_received(SMALL)  # the line goes on
        assert wire.written.count(b"HTTP/1.1 200") == 1
    assert door.counted == (0, 56_000, 56_000)


def test_body_that_is_whole_while_too_many_wait_is_429_and_its_line_goes_on():
    door = Door(budget=2 * LIMIT)
    late, told = opened(door)
    late.data_received(HEAD + b"x" * 399)
    door.holds = True
    for _ in range(4):  # one runs, three wait
        opened(door)[0].data_received(SMALL)
    assert door.counted == (4, 799, 399)
    late.data_received(b"x")
    assert told.written.startswith(b"HTTP/1.1 429") and door.counted == (4, 400, 0)
    door.holds = False
    for answer in door.held:
        answer(http1.Reply(200, "text/plain", b"fine"))
    late.data_received(SMALL)
    assert told.written.count(b"HTTP/1.1 200") == 1 and door.counted == (0, 0, 0)


@pytest.mark.parametrize("begun", BEGUN.values(), ids=BEGUN)
def test_bodies_that_stop_are_408_after_half_a_minute_and_hold_nothing(begun):
    async def check():
        door = Door(budget=2 * LIMIT * 10)
        slow = [opened(door) for _ in range(MANY)]
        for connection, _ in slow:
            connection.data_received(begun)
        now = time.monotonic()
        for connection, wire in slow:
            connection.sweep(connection._heard + 29.9)
            assert not wire.written
        for connection, wire in slow:
            connection.sweep(now + 30.1)
            assert wire.written.startswith(b"HTTP/1.1 408")
        assert door.counted == (0, 0, 0)

    in_a_loop(check())


@pytest.mark.parametrize("seed", range(5))
def test_what_is_held_is_counted_whatever_callers_do(seed):
    """Lines at random: begun, gone on with, finished, left, swept. What they hold is what is counted, no byte less."""
    chance = random.Random(seed)

    async def check():
        door = Door(budget=4 * LIMIT)
        lines = {}
        for _ in range(3000):
            what = chance.random()
            if what < 0.1 or not lines:
                connection, _ = opened(door)
                size = chance.choice((0, 1, 300, 5000, LIMIT))
                lines[connection] = (infer(b"x" * size) + SMALL) if chance.random() < 0.5 else _in_chunks(chance, size)
                continue
            connection = chance.choice(list(lines))
            if what < 0.12:
                connection.connection_lost(None)
                del lines[connection]
            elif what < 0.14:
                connection.sweep(connection._heard + 31)
            else:
                cut = chance.choice((1, 50, 3000, LIMIT))
                connection.data_received(lines[connection][:cut])
                lines[connection] = lines[connection][cut:]
                if not lines[connection]:
                    del lines[connection]
            _agrees(door, lines)
        for connection in lines:
            connection.connection_lost(None)
        assert door.counted == (0, 0, 0) and door.ran

    in_a_loop(check())


def _in_chunks(chance, size):
    pieces = [chunk(b"x" * piece) for piece in (chance.randrange(1, 3000) for _ in range(size // 1500))]
    return CHUNKED + b"".join(pieces) + chunk(b"")


def _agrees(door, lines):
    coming = [connection._request for connection in lines if connection._request]
    assert all(sum(map(len, request.pieces)) == request.had for request in coming if request.admitted)
    assert all(not request.pieces for request in coming if request.reply)
    held = sum(request.had for request in coming if request.admitted)
    assert door.counted == (0, held, held) and held <= 4 * LIMIT * (1 - 1 / KEPT)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("at_once", [True, False])
def test_body_in_the_smallest_pieces_takes_no_more_memory_than_its_bytes(size, at_once):
    door = Door(budget=4 * LIMIT)
    connection, wire = opened(door)
    connection.data_received(CHUNKED)
    pieces = [chunk(bytes([65 + n % 26]) * size) for n in range(20_000)]
    for piece in [b"".join(pieces)] if at_once else pieces:
        connection.data_received(piece)
    request = connection._request
    assert sum(map(sys.getsizeof, request.pieces)) + sys.getsizeof(request.pieces) < 2 * request.had + 10_000
    assert b"".join(request.pieces) == b"".join(bytes([65 + n % 26]) * size for n in range(20_000))
    connection.data_received(chunk(b""))
    assert is_fine(wire) and door.ran == [20_000 * size]


@pytest.fixture
def engine(tmp_path):
    registry = FakeRegistry()
    url, _ = publish(registry, "scale", VERSION, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    running = EngineProcess(tmp_path, PIPELINE_URL=url, MAX_QUEUE=2).start().ready(60)
    yield running
    running.stop()
    registry.stop()


def test_engine_answers_quick_callers_beside_many_slow_ones_and_these_at_last(engine):
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", engine.port), 60)) for _ in range(100)]
        for line in slow:
            line.sendall(infer()[: -len(BODY) // 2])
        for _ in range(20):
            assert engine.post("/infer", BODY)[0] == 200
        assert engine.get("/status.json")[1]["traffic"]["waiting"] == 0
        for line in slow:
            line.sendall(infer()[-len(BODY) // 2 :])
            assert answers(line, 1)[0] == [200]
    assert engine.get("/status.json")[1]["traffic"]["refused"] == 0
