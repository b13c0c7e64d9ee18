"""HTTP/1.1 on one connection, by httptools (llhttp): bytes become requests, and replies bytes.

A request is let in when its head is complete, before its body takes memory. Where its body does not come with its head,
it counts for what has come until it is whole (opsengine.gate). What is handed to `handle` is whole.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote

import httptools

from opsengine import heads
from opsengine.errors import RequestError
from opsengine.heads import Head
from opsengine.messages import Reply, Request, write

LARGEST_HEAD = 64 * 2**10
MOST_HEADERS = 256  # each takes some hundred bytes, however short it is
IDLE_SECONDS = 75.0  # without a request: longer than the 60 s that proxies keep a connection
STALLED_SECONDS = 30.0  # a caller that neither sends the rest of its request nor takes its answer
SLOWEST = 500  # bytes a second that a request comes, or an answer is taken, with after that time: drops keep no place
LINGER_SECONDS = 2.0  # an answer before the end of the body: time for it to be read, before the line is closed
MOST_PIECES = 64  # that a body is kept in before they are joined: callers choose how small they are


class Owner(Protocol):
    """Whom a connection belongs to."""

    largest_body: int
    is_draining: bool

    def opened(self, connection: "Connection") -> bool:
        """Whether there is room for one more connection."""
        ...

    def closed(self, connection: "Connection") -> None:
        """A connection is gone."""
        ...

    def admit(self, request: Request) -> Reply | None:
        """Let a request in, or say why not."""
        ...

    def grow(self, request: Request, *, is_whole: bool) -> Reply | None:
        """More has come of a request that was let in: count it, or say why it cannot go on (it is still to leave)."""
        ...

    def leave(self, request: Request) -> None:
        """A request has ended: it takes no place any more, if it took one (`request.admitted`)."""
        ...

    def handle(self, request: Request, answer: Callable[[Reply], None]) -> bool:
        """See to it that `answer` is called in the loop, now or later; True if in its next turn at the latest."""
        ...

    def stalls(self, connection: "Connection", *, is_full: bool) -> None:
        """Whether a connection holds an answer that its caller does not take."""
        ...

    def fault(self, error: RequestError) -> Reply:
        """An error as a reply."""
        ...


class Connection(asyncio.Protocol):
    """One caller. All of it runs in the loop's thread."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._head = 0  # bytes of a head that is not complete, 0 when there is none
        self._has_others = False  # the piece at hand has had parts of requests
        self._is_behind = False  # a head that is not complete began behind such parts
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._told: list[Head | None] = []  # by each request that began in the piece at hand, None: not a plain one
        self._request: Request | None = None  # its head is complete, its body is not
        self._lined: deque[Request] = deque()  # whole, and sent before the one under way was answered
        self._running: Request | None = None
        self._is_ending = False  # nothing more is read
        self._is_finishing = False  # but what is in line is answered
        self._is_full = False  # the caller does not take its answer
        self._left = 0  # bytes of it when it was last seen to be taken
        self._is_paused = False
        self._is_turning = False
        self._heard = self._began = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or say that there are too many."""
        self._transport = transport
        if not self._owner.opened(self):
            error = RequestError("Too many connections: try again in a moment.", 503, (("Retry-After", "1"),))
            self._end_with(self._owner.fault(error))

    def connection_lost(self, error: Exception | None) -> None:
        """The caller is gone: what it began to send or left in line is not run any more."""
        self._is_ending = True
        for request in (self._request, *self._lined):
            self._leave(request)
        self._request = None
        self._lined.clear()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """The caller is slow to take its answer: nothing more is read from it meanwhile."""
        self._is_full = True
        self._owner.stalls(self, is_full=True)
        self._heard, self._left = time.monotonic(), self.unsent
        self._pause()

    def resume_writing(self) -> None:
        """It took it."""
        self._is_full = False
        self._owner.stalls(self, is_full=False)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the `on_` methods."""
        if self._is_ending:
            return
        self._heard = time.monotonic()
        is_behind = self._has_others = self._request is not None or bool(self._head)
        if not is_behind:
            known = heads.find(data)
            if known is not None:  # the parser stands between two requests, and need not hear of this one
                self._began = self._heard
                self._line_up(*known)
                return
        self._told.clear()
        self._feed(data)
        if self._request is not None and not self._is_ending:
            self._keep(self._request)
        if self._head and not self._is_ending:  # the parser keeps what it has of a head, and sets no bound
            # Where others stand before it in this piece, it may be the last bytes: then the piece is not counted.
            self._head += 0 if self._is_behind else len(data)
            self._is_behind = False
            if self._head > LARGEST_HEAD or len(self._headers) > MOST_HEADERS:
                self._refuse_head()
        elif not is_behind and self._request is None and len(self._told) == 1 and self._told[0]:
            heads.keep(data, self._told[0])

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if not self._is_ending:
                self._stay(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            if not self._is_ending:
                self._refuse(f"The request is not valid HTTP: {error}.", 400)

    def _line_up(self, head: Head, body: bytes) -> None:
        """A whole request whose head was read before."""
        method, path, query, content_type, accept, encoding, size = head
        request = Request(method, path, query, content_type, accept, encoding, size, size)
        request.keep_alive = not self._owner.is_draining
        request.reply = self._owner.admit(request)
        if request.reply is None:
            request.body = body
        self._lined.append(request)
        self._next()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the caller has not taken."""
        return int(self._transport.get_write_buffer_size())

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._running is not None or self._request is not None or bool(self._head) or bool(self._lined)

    def sweep(self, now: float) -> None:
        """Close what is idle or stalled; a request that does not come whole is answered 408."""
        if self._running is not None and not self._is_full:
            self._began = now  # nothing is read meanwhile, so what has come of the next one is not late
            return
        if self._is_full and self._left - self.unsent >= SLOWEST * (now - self._heard):
            self._heard, self._left = now, self.unsent  # slow, but it takes it
        quiet = now - self._heard
        is_half = self._request is not None or bool(self._head)
        if is_half and not self._is_full and not self._is_ending:
            had = self._request.had if self._request is not None else self._head
            if quiet > STALLED_SECONDS or now - self._began > STALLED_SECONDS + had / SLOWEST:
                self._refuse("The request did not come whole in time: send it again, and faster.", 408)
        elif quiet > (STALLED_SECONDS if self.is_busy or self._is_full or self._is_ending else IDLE_SECONDS):
            self._transport.abort()

    def drain(self) -> None:
        """Close as soon as nothing is under way."""
        if not self.is_busy:
            self._transport.close()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._head = b"", 1
        self._is_behind, self._has_others = self._has_others, True
        self._headers = {}
        self._began = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        headers = self._headers
        if self._is_ending or (b"upgrade" in headers and self._parser.should_upgrade()):
            return  # what wants to be upgraded comes again, see _stay
        if len(headers) > MOST_HEADERS:
            self._refuse_head()
            return
        request = Request(
            self._parser.get_method().decode("ascii"),
            keep_alive=self._parser.should_keep_alive() and not self._owner.is_draining and not self._is_of_old,
            content_type=headers.get(b"content-type", b"").decode("latin-1"),
            accept=headers.get(b"accept", b"").decode("latin-1"),
            encoding=headers.get(b"content-encoding", b"").decode("latin-1"),
        )
        self._head = 0
        self._told.append(None)
        self._request = request
        if request.method == "CONNECT":  # what follows is no HTTP, so the parser stops here whatever is answered
            self._refuse("This is no proxy: CONNECT is not taken here.", 501)
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        request.path, request.query = unquote(path) if "%" in path else path, query
        length = headers.get(b"content-length")
        is_chunked = length is None and b"transfer-encoding" in headers
        request.size = self._owner.largest_body if is_chunked else int(length or 0)
        request.counted = 0 if is_chunked else request.size
        if request.size > self._owner.largest_body:
            self._refuse_size(self._owner.largest_body)
            return
        size = request.size
        request.reply = self._owner.admit(request)
        is_waiting = b"expect" in headers
        if is_waiting and request.reply is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        is_plain = request.keep_alive and not is_chunked and not is_waiting and request.size == size
        if is_plain and self._parser.get_http_version() == "1.1":
            told = request.method, request.path, request.query, request.content_type, request.accept, request.encoding
            self._told[-1] = Head(*told, size)

    @property
    def _is_of_old(self) -> bool:
        """HTTP/1.0 that asks to stay: without a word to that end in the answer it would wait for the line to close."""
        return b"connection" in self._headers and self._parser.get_http_version() == "1.0"

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        request = self._request
        if request is None or self._is_ending:
            return
        request.had += len(body)
        if request.had > request.size:
            self._refuse_size(request.size)
            return
        if request.reply is None:  # else it is read past, so that the caller hears the answer
            request.pieces.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._request = self._request, None
        if request is None or self._is_ending:
            return
        if request.admitted and (request.had > request.counted or not request.has_place):
            self._grow(request, is_whole=True)
        pieces = request.pieces
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        request.pieces = []
        self._lined.append(request)
        self._next()

    def _keep(self, request: Request) -> None:
        """What has been read ends before the body does."""
        if request.admitted and (request.had > request.counted or request.has_place):
            self._grow(request, is_whole=False)
        if len(request.pieces) - request.joined > MOST_PIECES:
            request.pieces[request.joined :] = [b"".join(request.pieces[request.joined :])]
            request.joined += 1

    def _grow(self, request: Request, *, is_whole: bool) -> None:
        request.reply = self._owner.grow(request, is_whole=is_whole)
        if request.reply is not None:
            self._leave(request)
            request.pieces.clear()

    # What becomes of it.

    def _next(self) -> None:
        """Run what is in line, one after another. What takes a while pauses the reading: the socket holds the rest."""
        if self._is_turning:  # an answer came at once: the turn under way goes on
            return
        self._is_turning, is_soon = True, False
        while self._lined and self._running is None and not self._is_full and self._goes_on:
            request = self._running = self._lined.popleft()
            if request.reply is not None:
                self._answer(request.reply)
            else:
                is_soon = self._owner.handle(request, self._answer)
        self._is_turning = False
        # Pausing costs more than reading on for a turn; what comes meanwhile is at most what lies in the socket.
        if self._is_full or (self._running is not None and (not is_soon or self._lined)):
            self._pause()
        elif self._is_paused and not self._is_ending:
            self._is_paused = False
            self._transport.resume_reading()

    @property
    def _goes_on(self) -> bool:
        return self._is_finishing or not self._is_ending

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _answer(self, reply: Reply) -> None:
        request, self._running = self._running, None
        if request is None:
            return
        self._leave(request)
        if self._transport.is_closing():
            return
        is_last = not request.keep_alive or self._owner.is_draining
        write(self._transport, reply, has_body=request.method != "HEAD", is_last=is_last)
        self._heard = time.monotonic()
        if is_last:
            self._is_ending, self._is_finishing = True, False
            self._transport.close()
        else:
            self._next()

    def _leave(self, request: Request | None) -> None:
        if request is not None:
            self._owner.leave(request)

    def _stay(self, rest: bytes) -> None:
        """Do not upgrade, which is optional (RFC 9110, 7.8). The parser stopped behind the head: it reads it once more.

        Some clients, Java's for one, ask for HTTP/2 so with their first request, whatever it is.
        """
        method, wanted = self._parser.get_method(), (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b: %b\r\n" % (name, value) for name, value in self._headers.items() if name not in wanted]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self._url, b"".join(lines))
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)
        self._told.append(None)  # what came was not this head

    def _refuse_head(self) -> None:
        self._refuse(
            f"The head of the request has over {LARGEST_HEAD} bytes or {MOST_HEADERS} headers: send less.", 431
        )

    def _refuse_size(self, limit: int) -> None:
        is_ours = limit == self._owner.largest_body  # else the address takes no more
        help_text = "send fewer rows at a time, or raise MAX_BODY" if is_ours else "send less"
        self._refuse(f"The body is larger than {limit} bytes: {help_text}.", 413)

    def _refuse(self, message: str, status: int) -> None:
        self._end_with(self._owner.fault(RequestError(message, status)))

    def _end_with(self, reply: Reply) -> None:
        """Answer in the middle of a request. What is still sent is read past for a while, or the answer were lost."""
        self._is_ending = True
        self._leave(self._request)
        self._request = None
        if self._running is not None:  # the caller would take this for the answer to what was asked before
            last = self._lined[-1] if self._lined else self._running
            last.keep_alive, self._is_finishing = False, True
            return
        write(self._transport, reply, has_body=True, is_last=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)
