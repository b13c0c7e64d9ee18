"""What keeps callers from taking all of the server: cut-offs of slow and idle lines, and the number of lines."""

import gc
import os
import random
import socket
import subprocess
import sys
import threading
from contextlib import closing

import orjson
import pytest

from engine.tests.conftest import ROOT, eventually
from opsengine import http1, machine, server
from opsengine.gate import MOST_UNSENT
from opsengine.http1 import Request
from opsengine.replies import Reply
from opsengine.server import Lane, Server

NEVER = 3600.0
SOON = 0.2
GET = b"GET / HTTP/1.1\r\nHost: e\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 400\r\n\r\n"
LARGE = b"x" * 2**23  # more than the sockets of both sides hold


class Plain:
    """Answers everything, `/large` with a lot; counts who is in."""

    largest_body = 1000

    def __init__(self):
        self.inside = self.unsent = 0
        self.go = threading.Event()

    def admit(self, request):
        self.inside += 1
        self.unsent = request.unsent
        request.admitted = True

    def grow(self, request, *, is_whole):
        pass

    def leave(self, request):
        self.inside -= 1

    def lane(self, request):
        return Lane.MODEL if request.path == "/held" else Lane.HERE

    def respond(self, request):
        if request.path == "/held":
            self.go.wait(60)
        return Reply(200, "text/plain", LARGE if request.path == "/large" else b"fine")

    def settle(self):
        pass

    def fault(self, error):
        return Reply(error.status, "application/json", orjson.dumps({"error": str(error)}), error.headers)


@pytest.fixture
def serve(monkeypatch):
    """Start a server with these limits; returns it, and what opens a line to it."""
    made, lines = [], []
    kept = gc.get_threshold(), sys.getswitchinterval()

    def start(**limits):
        monkeypatch.setattr(server, "SWEEP_SECONDS", 0.02)
        monkeypatch.setattr(server, "MOST_CONNECTIONS", limits.pop("MOST_CONNECTIONS", server.MOST_CONNECTIONS))
        for name, value in {"IDLE_SECONDS": NEVER, "STALLED_SECONDS": NEVER, **limits}.items():
            monkeypatch.setattr(http1, name, value)
        app = Plain()
        running = Server(app, "127.0.0.1", 0, 2, 4)
        port = running._socket.getsockname()[1]
        running.start()
        made.append((running, app))

        def dial():
            lines.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            return lines[-1]

        eventually(lambda: running._listener is not None, 60)
        return running, app, dial

    yield start
    for line in lines:
        line.close()
    for running, app in made:
        app.go.set()
        running.stop(5.0)
    gc.unfreeze()
    gc.set_threshold(*kept[0])
    sys.setswitchinterval(kept[1])


def heard(line):
    """All that comes until the line is closed."""
    had = b""
    while piece := line.recv(2**16):
        had += piece
    return had


def is_fine(line):
    line.sendall(GET)
    return line.recv(2**16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("begun", [b"G", GET[:-2], POST, POST + b"x" * 399])
def test_request_that_stops_half_way_is_408_and_cut_off(serve, begun):
    _, app, dial = serve(STALLED_SECONDS=SOON)
    idle, line = dial(), dial()
    line.sendall(begun)
    had = heard(line)
    assert had.startswith(b"HTTP/1.1 408 ") and b"did not come whole in time" in had
    assert b"connection: close" in had
    eventually(lambda: app.inside == 0, 60)  # its place is free again
    assert is_fine(idle)  # that limit is not the one of idle lines


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\nX-Long: ", POST])
def test_request_in_drops_is_cut_off_too(serve, begun):
    """No pause between the drops is a stall: all of them together are too slow."""
    _, app, dial = serve(STALLED_SECONDS=SOON, SLOWEST=2**20)
    line, ended = dial(), threading.Event()
    line.sendall(begun)

    def drip():
        while not ended.wait(SOON / 20):
            try:
                line.sendall(b"x")
            except OSError:
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        assert line.recv(2**16).startswith(b"HTTP/1.1 408 ")
    finally:
        ended.set()
        dripping.join()
    eventually(lambda: app.inside == 0, 60)


def test_slow_request_that_keeps_the_rate_is_answered(serve):
    _, _, dial = serve(STALLED_SECONDS=NEVER, IDLE_SECONDS=SOON)
    line, other = dial(), dial()
    line.sendall(POST)
    assert heard(other) == b""  # an idle line is closed meanwhile, this one is not idle
    line.sendall(b"x" * 400)
    assert line.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_idle_line_is_closed_before_and_after_a_request(serve):
    running, _, dial = serve(IDLE_SECONDS=SOON)
    fresh, used = dial(), dial()
    used.sendall(GET)
    assert heard(used).startswith(b"HTTP/1.1 200 ")
    assert heard(fresh) == b""
    eventually(lambda: not running._connections, 60)


def test_line_that_waits_for_its_answer_is_not_idle(serve):
    _, app, dial = serve(IDLE_SECONDS=SOON, STALLED_SECONDS=SOON)
    line, idle = dial(), dial()
    line.sendall(b"GET /held HTTP/1.1\r\nHost: e\r\n\r\n" + POST)
    assert heard(idle) == b""
    app.go.set()
    assert line.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_answer_that_is_not_taken_is_cut_off(serve):
    running, _, dial = serve(STALLED_SECONDS=SOON)
    line = dial()
    line.sendall(GET.replace(b"/ ", b"/large ", 1) * 4)
    eventually(lambda: running._connections, 60)
    eventually(lambda: not running._connections, 60, "the line was kept")


def test_answers_that_are_not_taken_are_told_to_who_lets_in(serve):
    _, app, dial = serve()
    slow, other = dial(), dial()
    slow.sendall(b"GET /large HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")
    eventually(lambda: is_fine(other) and app.unsent > 0, 60)
    assert app.unsent <= len(LARGE) + 1000
    assert len(heard(slow)) > len(LARGE)
    eventually(lambda: is_fine(other) and app.unsent == 0, 60)


class Line:
    """A connection as far as a server adds up what it holds."""

    def __init__(self, unsent):
        self.unsent = unsent


@pytest.fixture
def adding(serve):
    running, app, _ = serve()

    def unsent():
        running.admit(Request())
        return app.unsent

    return running, unsent


def test_what_lines_hold_is_added_up_as_they_come_and_go(adding):
    running, unsent = adding
    chance, lines = random.Random(7), [Line(0) for _ in range(20)]
    for _ in range(500):
        line = chance.choice(lines)
        line.unsent = chance.randrange(2**16, 2**18)
        what = chance.choice(("stalls", "stalls", "takes", "goes"))
        if what == "goes":
            running.closed(line)
        else:
            running.stalls(line, is_full=what == "stalls")
        assert unsent() == sum(running._stalled.values()) <= 20 * 2**18
    for line in lines:  # some take their answer first, some never held one, and no end is told twice
        running.stalls(line, is_full=chance.random() < 0.5)
        running.closed(line)
    assert (unsent(), running._stalled) == (0, {})


def test_what_was_taken_since_it_was_looked_at_refuses_nobody(adding):
    running, unsent = adding
    lines = [Line(MOST_UNSENT // 2) for _ in range(3)]
    for line in lines:
        running.stalls(line, is_full=True)
    assert unsent() == 3 * (MOST_UNSENT // 2)
    for line in lines:
        line.unsent -= 2**20
    assert unsent() == 3 * (MOST_UNSENT // 2 - 2**20)
    lines[0].unsent = 2**20
    assert unsent() == MOST_UNSENT - 2**20
    for line in lines:
        running.closed(line)
    assert unsent() == 0


def test_nothing_is_held_after_callers_took_their_answers_or_left(serve):
    running, _, dial = serve()
    lines = [dial() for _ in range(6)]
    for line in lines:
        line.sendall(GET.replace(b"/ ", b"/large ", 1))
    eventually(lambda: len(running._stalled) == 6, 60)
    assert 0 < running._unsent <= 6 * (len(LARGE) + 1000)
    for line in lines[:3]:
        line.close()
    for line in lines[3:]:
        had = 0
        while had < len(LARGE):
            had += len(line.recv(2**20))
    eventually(lambda: (running._unsent, running._stalled) == (0, {}), 60)


def test_one_line_too_many_is_told_so_and_there_is_room_again(serve):
    running, _, dial = serve(MOST_CONNECTIONS=3)
    lines = [dial() for _ in range(3)]
    assert all(is_fine(line) for line in lines)
    had = heard(dial())
    assert had.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in had and b"Too many connections" in had
    assert all(is_fine(line) for line in lines)
    lines.pop().close()
    eventually(lambda: len(running._connections) == 2, 60)
    assert is_fine(dial())


def test_hundreds_of_lines_are_served_at_once(serve):
    _, _, dial = serve()
    lines = [dial() for _ in range(400)]  # both ends are in this process, which may hold 1,024 files
    assert all(is_fine(line) for line in lines)


def test_limits_are_the_documented_ones():
    assert (http1.STALLED_SECONDS, http1.IDLE_SECONDS, server.MOST_CONNECTIONS) == (30.0, 75.0, 1024)


def test_body_over_the_limit_is_413_and_names_the_limit(serve):
    _, app, dial = serve()
    with closing(dial()) as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 1001\r\n\r\n")
        had = heard(line)
    assert had.startswith(b"HTTP/1.1 413 ") and b"larger than 1000 bytes" in had and b"MAX_BODY" in had
    assert app.inside == 0


def test_caller_who_sends_once_more_at_the_end_is_answered_and_told_to_close(serve, monkeypatch):
    monkeypatch.setattr(server, "GRACE_SECONDS", NEVER)
    running, _, dial = serve()
    lines = [dial(), dial()]
    assert all(is_fine(line) for line in lines)
    ended = []
    stopping = threading.Thread(target=lambda: ended.append(running.stop(NEVER)))
    stopping.start()
    eventually(lambda: running.is_draining, 60)
    for line in [*lines, dial()]:  # one more comes before the word is out
        line.sendall(GET)
        had = heard(line)
        assert had.startswith(b"HTTP/1.1 200 ") and b"connection: close" in had
    stopping.join(60)
    assert ended == [True]


def test_idle_lines_hold_up_no_end(serve, monkeypatch):
    monkeypatch.setattr(server, "GRACE_SECONDS", SOON)
    running, _, dial = serve()
    line = dial()
    assert is_fine(line)
    assert running.stop(60.0)
    assert heard(line) == b""


ASKED = """
import resource
from opsengine import machine

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
machine.open_files()
soft, after = resource.getrlimit(resource.RLIMIT_NOFILE)
assert after == hard and soft == (4096 if hard == resource.RLIM_INFINITY else min(4096, hard)), (soft, after, hard)
machine.open_files()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, after)
"""


def test_engine_asks_for_as_many_open_files_as_it_takes_lines():
    assert machine.FILES >= 2 * server.MOST_CONNECTIONS
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "engine" / "src")}
    done = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
