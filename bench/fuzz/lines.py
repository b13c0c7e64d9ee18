"""What comes on a line: two bytes say how it is cut and when answers are ready, the rest are the bytes of HTTP."""

import asyncio
import re
import sys

import httptools

from bench.fuzz.site import Bounds, Harm, Site
from opsengine.http1 import Connection

STATUSES = {100, 200, 400, 404, 405, 408, 413, 415, 431, 501}
HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n((?:[a-z-]+: [^\r\n]*\r\n)*)\r\n")
LENGTH = re.compile(rb"content-length: (\d+)\r\n")
WORDS = (
    *(b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"OPTIONS * ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" HTTP/1.1\r\n"),
    *(b" HTTP/1.0\r\n", b"\r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"Connection: Upgrade\r\n"),
    *(b"Upgrade: websocket\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"5;a=b\r\n", b"/infer", b"/logs", b"%00"),
)
BODY = b'[{"tensor":[1.0,2.0]}]'


class Lines:
    """The target: `lines(data)` raises Harm."""

    def __init__(self, site=None):
        self._site = site or Site()
        self._site.serve("numbers")
        self._loop = asyncio.new_event_loop()

    def __call__(self, data):
        with Bounds():
            self._loop.run_until_complete(self._check(data))

    async def _check(self, data):
        step, flags, stream = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
        self._statuses(stream, len(stream), is_late=False)  # what stood in its head may be known from now on
        whole = self._statuses(stream, len(stream), is_late=False)
        cut = self._statuses(stream, 1 + step[0], is_late=False)
        if whole != cut:
            raise Harm(f"cut into pieces of {1 + step[0]} bytes it is answered {cut}, whole {whole}")
        self._statuses(stream, 1 + step[0] * (flags[0] & 1), is_late=True)

    def _statuses(self, stream, step, *, is_late):
        owner = Caller(self._site, is_late=is_late)
        for at in range(0, len(stream), step or 1):
            owner.send(stream[at : at + step])
        owner.leave_line()
        return _read(bytes(owner.had), stream)


class Caller:
    """Both ends of a line: the transport that a connection writes to, and the server that it belongs to."""

    largest_body = 4096
    is_draining = False

    def __init__(self, site, *, is_late):
        self.had, self._inside, self._site, self._is_late = bytearray(), 0, site, is_late
        self._waiting, self._closed, self._is_paused, self._held = [], False, False, b""
        self._connection = Connection(self)
        self._connection.connection_made(self)

    def send(self, data):
        """What comes while the connection does not read is kept, as a socket does."""
        self._held += data
        self._deliver()
        while self._waiting and not self._closed:
            answer, reply = self._waiting.pop(0)
            answer(reply)
            self._deliver()

    def _deliver(self):
        if self._held and not self._is_paused and not self._closed:
            data, self._held = self._held, b""
            self._connection.data_received(data)

    def leave_line(self):
        """The caller goes; nothing may be left of it."""
        self._connection.connection_lost(None)
        for answer, reply in self._waiting:
            answer(reply)
        if self._inside:
            raise Harm(f"{self._inside} requests are still counted after the caller is gone")

    # The server.

    def opened(self, connection):
        return True

    def closed(self, connection):
        pass

    def admit(self, asked):
        asked.admitted = asked.has_place = True
        self._inside += 1
        return

    def grow(self, asked, *, is_whole):
        asked.counted, asked.has_place = asked.had, is_whole

    def stalls(self, connection, *, is_full):
        pass

    def leave(self, asked):
        if asked.admitted:
            asked.admitted = False
            self._inside -= 1

    def handle(self, asked, answer):
        reply = self._site.answer(asked)
        self.leave(asked)
        if self._is_late:
            self._waiting.append((answer, reply))
            return len(self._waiting) % 2 == 0
        answer(reply)
        return True

    def fault(self, error):
        stop = sys.exc_info()[1]
        if isinstance(stop, httptools.HttpParserCallbackError):  # ours, and no fault of the caller
            raise Harm(f"reading the request failed: {stop.__context__!r}") from stop.__context__
        return self._site.app.fault(error)

    # The transport.

    def write(self, data):
        if self._closed:
            raise Harm("written to a line that is closed")
        self.had += data

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def pause_reading(self):
        self._is_paused = True

    def resume_reading(self):
        self._is_paused = False

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self._closed

    def can_write_eof(self):
        return True

    def write_eof(self):
        pass

    def close(self):
        self._closed = True

    abort = close


def _read(had, sent):
    """The statuses of all answers. Raises Harm where they cannot be read, one behind the other."""
    statuses, at = [], 0
    while at < len(had):
        head = HEAD.match(had, at)
        if head is None or int(head[1]) not in STATUSES:
            raise Harm(f"no answer that a caller knows: {had[at : at + 300]!r}")
        statuses.append(int(head[1]))
        at = head.end()
        length = LENGTH.search(head[2])
        has_body = length is not None and not (b"HEAD" in sent and had[at : at + 9] in (b"", b"HTTP/1.1 "))
        at += int(length[1]) if has_body else 0
    if at > len(had):
        raise Harm("an answer was cut short")
    return statuses


def seeds():
    """Good requests, one and several on a line, in the ways that clients send them."""
    plain = _request("POST /infer", b"Content-Length: %d\r\n" % len(BODY)) + BODY
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:5], BODY[5:]))
    chunked = _request("POST /infer?dataset[]=out", b"Transfer-Encoding: chunked\r\n") + pieces
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    for stream in (
        plain,
        plain * 3,
        chunked + b"0\r\n\r\n" + plain,
        chunked + b"0\r\nTrailer: 1\r\n\r\n",
        _request("POST /infer", b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(BODY)) + BODY,
        _request("POST /infer", upgrade + b"Content-Length: %d\r\n" % len(BODY)) + BODY,
        _request("POST /infer", b"Content-Length: 99999\r\n") + BODY,
        _request("HEAD /healthz") + _request("GET /pipelines") + plain,
        _request("GET /healthz", version="1.0") + plain,
        _request("GET /%68ealthz?x=1#y", b"Connection: close\r\n") + plain,
        _request("POST /logs", b"Content-Length: 2\r\n") + b"{}",
        _request("OPTIONS *") + _request("PUT /infer", b"Content-Length: 0\r\n") + b"nonsense\r\n\r\n",
    ):
        yield b"\x00\x00" + stream
        yield b"\x1f\x01" + stream


def _request(line, headers=b"", version="1.1"):
    return f"{line} HTTP/{version}\r\nHost: e\r\nContent-Type: application/json\r\n".encode() + headers + b"\r\n"
