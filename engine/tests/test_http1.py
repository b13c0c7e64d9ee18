"""What callers do with a connection beside sending one request and reading the answer."""

import gc
import re
import select
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing

import orjson
import pytest

from engine.tests.conftest import EngineProcess
from engine.tests.fakes import models
from engine.tests.fakes.registry import FakeRegistry, publish
from opsengine.app import App
from opsengine.gate import Gate
from opsengine.http1 import LARGEST_HEAD, SLOWEST, Connection
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.replies import Reply
from opsengine.server import Lane, Server
from opsengine.traffic import Traffic

VERSION = "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
BODY = orjson.dumps([{"tensor": [1.0, 2.0]}])
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: e\r\n\r\n"
LIMIT = 64 * 2**10


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    registry = FakeRegistry()
    url, _ = publish(registry, "scale", VERSION, [("by-two", "m1", models.scale(2.0), ["tensor"])])
    running = EngineProcess(tmp_path_factory.mktemp("http1"), PIPELINE_URL=url, MAX_BODY="64Ki").start().ready()
    yield running
    assert running.get("/healthz")[0] == 200  # nothing here took the engine down
    assert "Traceback" not in running.log
    running.stop()
    registry.stop()


@pytest.fixture
def line(engine):
    with closing(socket.create_connection(("127.0.0.1", engine.port), timeout=5)) as made:
        yield made


def infer(body=BODY, *headers, version="1.1"):
    lines = [f"POST /infer HTTP/{version}", "Host: e", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def answers(line, count=None):
    """Statuses of `count` answers; without a count, of all until the line is closed."""
    had = b""
    while count is None or len(re.findall(rb"HTTP/1\.1 [2-5]", had)) < count or not _is_whole(had):
        piece = line.recv(2**16)
        if not piece:
            break
        had += piece
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", had)], had


def _is_whole(had):
    head, _, body = had[had.rindex(b"HTTP/1.1") :].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(length) and len(body) >= int(length[1])


def test_requests_sent_at_once_are_answered_in_order(line):
    line.sendall(infer() + HEALTH + infer(b"[]") + infer() * 20)
    statuses, had = answers(line, 23)
    assert statuses == [200, 200, 400, *[200] * 20]
    assert had.index(b'"out"') < had.index(b'"alive"') < had.index(b"no rows")


def test_burst_of_requests_that_ends_within_a_head_is_answered_whole(line):
    count = 4 * LARGEST_HEAD // len(HEALTH)
    line.settimeout(30)
    sender = threading.Thread(target=line.sendall, args=(HEALTH * count,))
    sender.start()
    assert answers(line, count)[0] == [200] * count
    sender.join()


def test_request_in_single_bytes_is_answered(line):
    for byte in infer():
        line.sendall(bytes([byte]))
    assert answers(line, 1)[0] == [200]


def test_line_stays_open_unless_the_caller_asks(line):
    line.sendall(infer())
    assert answers(line, 1)[0] == [200]
    line.sendall(infer(BODY, "Connection: close"))
    statuses, had = answers(line)
    assert statuses == [200] and b"connection: close" in had


def test_http_1_0_is_answered_and_closed(line):
    line.sendall(infer(version="1.0"))
    assert answers(line)[0] == [200]


def test_http_1_0_that_asks_to_stay_is_closed_too(line):
    line.sendall(infer(BODY, "Connection: keep-alive", version="1.0"))
    statuses, had = answers(line)
    assert statuses == [200] and b"connection: close" in had


def test_body_is_asked_for_where_the_caller_waits_for_that(line):
    head, _, body = infer(BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
    line.sendall(head + b"\r\n\r\n")
    assert line.recv(100).startswith(b"HTTP/1.1 100 ")
    line.sendall(body)
    assert answers(line, 1)[0] == [200]


def test_body_that_would_be_too_large_is_not_asked_for(line):
    line.sendall(b"POST /infer HTTP/1.1\r\nHost: e\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert answers(line)[0] == [413]


@pytest.mark.parametrize("rest", [0, 1])  # the body with the head, and behind it
def test_wish_for_http_2_is_passed_over(line, rest):
    request = infer(BODY, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    cut = len(request) - rest * len(BODY)
    line.sendall(request[:cut])
    time.sleep(0.1 * rest)
    line.sendall(request[cut:])
    assert answers(line, 1)[0] == [200]
    line.sendall(HEALTH)
    assert answers(line, 1)[0] == [200]


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS where none is spoken
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /infer HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /infer HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /infer HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_400_and_closed(line, wrong):
    line.sendall(wrong)
    statuses, had = answers(line)
    assert statuses == [400] and b"connection: close" in had


@pytest.mark.parametrize("target", ["example.com:443", "/infer", "/healthz"])
def test_connect_is_answered_once_and_closed(line, target):
    line.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: e\r\n\r\n".encode() + HEALTH)
    statuses, had = answers(line)
    assert statuses == [501] and b"no proxy" in had


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, identity"])
def test_packed_body_is_415_and_says_so(line, coding):
    line.sendall(infer(b"\x1f\x8b anything", f"Content-Encoding: {coding}", "Connection: close"))
    statuses, had = answers(line)
    assert statuses == [415] and b"accept-encoding: identity" in had and b"send the body as it is" in had


def test_body_that_is_said_to_be_as_it_is_is_answered(line):
    line.sendall(infer(BODY, "Content-Encoding: identity", "Connection: close"))
    assert answers(line)[0] == [200]


def test_endless_head_is_431(line):
    line.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X-Long: %b\r\n" % (b"a" * 9000) * 8)
    assert answers(line)[0] == [431]


def test_answers_before_a_fault_still_come(line):
    line.sendall(infer() + HEALTH + b"nonsense\r\n\r\n")
    assert answers(line)[0][:2] == [200, 200]


def test_answer_that_takes_a_while_comes_though_nonsense_is_behind_it(engine, line):
    body = orjson.dumps([{"tensor": [1.0, 2.0]}] * 1500)  # a size that was not seen before: it runs in a thread
    line.sendall(infer(body) + b"nonsense\r\n\r\n")
    statuses, had = answers(line)
    assert statuses == [200] and b"connection: close" in had
    assert len(orjson.loads(had.partition(b"\r\n\r\n")[2])) == 1500


def test_chunked_body_that_grows_over_the_limit_is_413(line):
    line.sendall(b"POST /infer HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n")
    line.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
    line.sendall((b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 4)
    assert answers(line)[0] == [413]


CHUNKED = b"POST /infer HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_many_bodies_of_untold_size_are_answered_at_once(engine):
    """Some clients tell no size of any body: one counts for what has come of it, not for what it might be."""
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", engine.port), 5)) for _ in range(6)]
        for one in lines:
            one.sendall(CHUNKED + chunk(BODY[:5]))
        for one in lines:
            one.sendall(chunk(BODY[5:]) + chunk(b""))
        assert [answers(one, 1)[0] for one in lines] == [[200]] * 6


def test_caller_who_leaves_in_the_middle_frees_its_place(engine):
    for _ in range(200):  # more than may wait
        with closing(socket.create_connection(("127.0.0.1", engine.port), timeout=5)) as line:
            line.sendall(infer()[:-3])
    assert engine.post("/infer", BODY)[0] == 200


def test_head_without_a_body_is_answered_without_one(line):
    line.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")
    statuses, had = answers(line)
    assert statuses == [200] and had.endswith(b"\r\n\r\n")


def test_absolute_and_escaped_targets_are_understood(line):
    line.sendall(b"GET /%68ealthz?x=1 HTTP/1.1\r\nHost: e\r\n\r\n")
    assert answers(line, 1)[0] == [200]


class Door:
    """Whom connections belong to: lets requests in through a gate, as far as they are told to be."""

    largest_body = LIMIT
    is_draining = False

    def __init__(self, budget):
        self.gate = Gate(1, 3, budget)
        self.app = App(None, Traffic(DataPlane(None, LIMIT), self.gate, Metrics(tuple), None), (None, None), None, 1)
        self.admit, self.grow, self.fault = self.app.admit, self.app.grow, self.app.fault
        self.ran, self.held, self.holds = [], [], False

    @property
    def counted(self):
        """Places, bytes, and bytes of bodies that are coming."""
        return self.gate._inside, self.gate._bytes, self.gate._coming

    def opened(self, connection):
        return True

    def closed(self, connection):
        pass

    def stalls(self, connection, *, is_full):
        pass

    def leave(self, request):
        if request.admitted:
            request.admitted = False
            self.app.leave(request)

    def handle(self, request, answer):
        self.ran.append(len(request.body))
        if self.holds:
            self.held.append(answer)
            return False
        answer(Reply(200, "text/plain", b"fine"))
        return False


class Wire:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written, self.unsent, self.is_aborted = b"", 0, False

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def can_write_eof(self):
        return False

    def close(self):
        pass

    def abort(self):
        self.is_aborted = True

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False


def opened(owner):
    connection, wire = Connection(owner), Wire()
    connection.connection_made(wire)
    return connection, wire


def test_bodies_of_untold_size_that_are_too_much_together_are_429():
    door = Door(budget=100_000)
    (one, first), (other, second) = opened(door), opened(door)
    one.data_received(CHUNKED + chunk(b"x" * 50_000))
    other.data_received(CHUNKED + chunk(b"y" * 30_000))
    other.data_received(chunk(b"y" * 10_000))  # too much
    one.data_received(chunk(b""))
    other.data_received(chunk(b"y" * 10_000))  # read past, though there is room by now
    assert first.written.startswith(b"HTTP/1.1 200") and not second.written
    other.data_received(chunk(b""))
    assert second.written.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in second.written
    other.data_received(CHUNKED + chunk(b"y" * 60_000) + chunk(b""))  # all of it was given back
    assert second.written.count(b"HTTP/1.1 200") == 1 and door.ran == [50_000, 60_000]


def test_answer_that_is_taken_slowly_is_not_cut_off_and_one_in_drops_is():
    connection, wire = opened(Door(budget=100_000))
    began = time.monotonic()
    wire.unsent = 10_000_000
    connection.pause_writing()
    for seconds in range(5, 100, 5):
        wire.unsent -= 5 * 2 * SLOWEST
        connection.sweep(began + seconds)
    assert not wire.is_aborted
    for seconds in range(100, 200, 5):
        wire.unsent -= 1
        connection.sweep(began + seconds)
    assert wire.is_aborted


class Slow:
    """An application whose log takes its time."""

    largest_body = 1000

    def __init__(self):
        self.answered, self.asked, self.written = [], threading.Event(), threading.Event()

    def admit(self, request):
        return None

    def leave(self, request):
        pass

    def lane(self, request):
        return Lane.HERE if request.path == "/here" else Lane.MODEL

    def respond(self, request):
        self.answered.append(request.path)
        return Reply(200, "text/plain", b"made")

    def settle(self):
        self.asked.set()
        assert self.written.wait(30)

    def fault(self, error):
        return Reply(error.status, "text/plain", b"")


@pytest.fixture
def as_before():
    """A server changes the interpreter that it runs in."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def _connected(port):
    end = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:  # it does not listen yet
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("path", ["/here", "/thread"])
def test_no_answer_goes_out_before_its_rows_are_in_the_journal(path):
    app = Slow()
    server = Server(app, "127.0.0.1", 0, 1, 1)
    port = server._socket.getsockname()[1]
    server.start()
    try:
        with _connected(port) as line:
            line.sendall(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
            assert app.asked.wait(30) and app.answered == [path]
            assert select.select([line], [], [], 0)[0] == []
            app.written.set()
            assert line.recv(1000).startswith(b"HTTP/1.1 200")
    finally:
        app.written.set()
        server.stop(5)
