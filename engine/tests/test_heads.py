"""Heads that come again, byte for byte, are not read again: nobody can tell from what is answered."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.tests.conftest import in_a_loop
from engine.tests.test_http1 import Door, Wire, infer, opened
from opsengine import heads, kept
from opsengine.http1 import Connection


class Listener(Door):
    """Keeps what it was asked."""

    def __init__(self):
        super().__init__(budget=2**20)
        self.asked = []

    def handle(self, request, answer):
        told = request.method, request.path, request.query, request.content_type, request.accept, request.encoding
        self.asked.append((*told, request.body, request.keep_alive))
        return super().handle(request, answer)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """None is known at first."""
    monkeypatch.setattr(heads, "_known", kept.Kept())
    return heads._known


@pytest.fixture
def fed(monkeypatch):
    """What the parser was given."""
    pieces, feed = [], Connection._feed
    monkeypatch.setattr(Connection, "_feed", lambda self, data: (pieces.append(data), feed(self, data)))
    return pieces


def test_second_request_with_the_same_head_is_not_parsed_and_has_its_own_body(fed):
    door = Listener()
    (one, first), (other, second) = opened(door), opened(door)
    one.data_received(infer(b"[1]"))
    one.data_received(infer(b"[2]"))
    other.data_received(infer(b"[3]"))
    assert [told[6] for told in door.asked] == [b"[1]", b"[2]", b"[3]"]
    assert len({told[:6] for told in door.asked}) == 1
    assert len(fed) == 1
    assert (first.written.count(b"HTTP/1.1 200"), second.written.count(b"HTTP/1.1 200")) == (2, 1)
    assert door.counted == (0, 0, 0)


def test_request_without_a_body_is_known_too(fed):
    door = Listener()
    connection, _ = opened(door)
    for _ in range(3):
        connection.data_received(b"HEAD /healthz?x=%20 HTTP/1.1\r\nHost: e\r\n\r\n")
    assert door.asked == [("HEAD", "/healthz", "x=%20", "", "", "", b"", True)] * 3
    assert len(fed) == 1


@pytest.mark.parametrize(
    "data",
    [
        infer(b"[1]", "Connection: close"),
        infer(b"[1]", version="1.0"),
        infer(b"[1]", "Expect: 100-continue"),
        infer(b"[1]", "Connection: Upgrade", "Upgrade: h2c"),
        infer(b"[1]", "X-Long: " + "x" * heads.LONGEST),
        infer(b"[1]") * 2,
        infer(b"[1]")[:-1],
        b"POST /infer HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
        b"POST /status HTTP/1.1\r\nHost: e\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20000,
        b"POST /infer HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\n[1]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: e\r\nContent-Length: x\r\n\r\n",
        b"CONNECT e:1 HTTP/1.1\r\nHost: e\r\n\r\n",
    ],
)
def test_what_is_not_one_plain_request_is_parsed_every_time(data, known):
    async def come_twice():  # in a loop, which closes the line of what is refused
        for _ in range(2):
            opened(Listener())[0].data_received(data)
            assert not known

    in_a_loop(come_twice())


def test_piece_that_is_more_or_less_than_the_request_is_parsed():
    door = Listener()
    connection, _ = opened(door)
    whole = infer(b"[1]")
    for piece in (whole, whole[:-1], whole[-1:], whole + whole[:9], whole[9:], whole):
        connection.data_received(piece)
    assert [told[6] for told in door.asked] == [b"[1]"] * 5


def test_body_that_looks_like_a_request_is_a_body(fed):
    door = Listener()
    connection, _ = opened(door)
    inner = infer(b"[1]")
    connection.data_received(inner)
    connection.data_received(infer(inner + b"rest")[: -len(inner) - 4])  # the head only
    connection.data_received(inner)
    connection.data_received(b"rest")
    assert [told[6] for told in door.asked] == [b"[1]", inner + b"rest"]


def test_known_head_is_let_in_by_the_gate_like_any_other():
    door = Listener()
    door.holds = True
    lines = [opened(door) for _ in range(6)]
    for connection, _ in lines:
        connection.data_received(infer(b"[1]"))
    assert [wire.written[:12] for _, wire in lines] == [b""] * 4 + [b"HTTP/1.1 429"] * 2  # one runs, three wait
    assert door.counted == (4, 12, 0)


def test_line_closes_behind_a_known_head_while_the_engine_ends():
    door = Listener()
    connection, wire = opened(door)
    connection.data_received(infer(b"[1]"))
    door.is_draining = True
    connection.data_received(infer(b"[2]"))
    assert wire.written.count(b"connection: close") == 1 and door.asked[1][7] is False


def test_number_of_known_heads_is_bounded(known):
    connection, _ = opened(Listener())
    for number in range(3 * kept.MOST):
        connection.data_received(infer(b"[1]", f"X-Request-Id: {number}"))
        assert 0 < len(known) <= kept.MOST


REQUESTS = (
    infer(b"[1]"),
    infer(b"[2]"),
    infer(b"[10]"),
    infer(b"\r\n\r\n"),
    infer(b"", "Accept: */*"),
    b"GET /readyz HTTP/1.1\r\nHost: e\r\n\r\n",
    b"POST /infer HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=8), st.data())
def test_requests_are_the_same_however_they_are_cut(requests, data):
    stream = b"".join(requests)
    ends = {len(b"".join(requests[:count])) for count in range(len(requests))}
    cuts = sorted({*ends, *data.draw(st.sets(st.integers(1, len(stream)), max_size=4))})
    if data.draw(st.booleans()):
        cuts = [cut for cut in cuts if data.draw(st.booleans())]
    ways = []
    for pieces in (bytes([byte]) for byte in stream), _pieces(stream, cuts), _pieces(stream, cuts):
        door, wire = Listener(), Wire()
        connection = Connection(door)
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        assert door.counted == (0, 0, 0)
        ways.append((door.asked, wire.written.count(b"HTTP/1.1 200")))
    assert ways[0] == ways[1] == ways[2]


def _pieces(stream, cuts):
    bounds = [0, *cuts, len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds) if start < end]
