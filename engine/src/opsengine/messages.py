"""Requests and answers, and how an answer is written in HTTP/1.1."""

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple

SMALL = 2**14  # answers that are copied behind their head, instead of being written on their own

Headers = tuple[tuple[str, str], ...]


class Reply(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()


@dataclass(slots=True)
class Request:
    """A request as the application sees it."""

    method: str = ""
    path: str = ""
    query: str = ""
    content_type: str = ""
    accept: str = ""
    encoding: str = ""  # of the body: Content-Encoding
    size: int = 0  # the most bytes that the body may have
    counted: int = 0  # bytes of it that the gate counts: all, or, until it is whole, what has come
    body: bytes = b""
    admitted: bool = False  # counted by the gate, which is to be told of the end
    has_place: bool = False  # among those that run or wait, by the gate: not while its body is coming
    unsent: int = 0  # bytes of answers that callers had not taken when this was asked
    meets: bool = False  # it may wait in its thread for others, to be run with them
    keep_alive: bool = True
    reply: Reply | None = None  # known before the body was read
    pieces: list[bytes] = field(default_factory=list)
    joined: int = 0  # the first so many of them are not joined again
    had: int = 0


_heads: dict[tuple[int, str], bytes] = {}
_date: tuple[int, bytes] = (0, b"")


def write(transport: Any, reply: Reply, *, has_body: bool, is_last: bool) -> None:
    """Write it to a transport; `is_last`: its line closes behind it."""
    key = reply.status, reply.content_type
    head = _heads.get(key)
    if head is None:
        phrase = HTTPStatus(reply.status).phrase
        text = f"HTTP/1.1 {reply.status} {phrase}\r\ncontent-type: {reply.content_type}\r\ncontent-length: "
        head = _heads[key] = text.encode("latin-1")
    end = b"\r\n\r\n"
    if is_last or reply.headers:
        more = (*reply.headers, ("connection", "close")) if is_last else reply.headers
        end = b"\r\n" + "".join(f"{name.lower()}: {value}\r\n" for name, value in more).encode("latin-1") + b"\r\n"
    start = b"%b%d\r\ndate: %b%b" % (head, len(reply.body), _now(), end)
    if not has_body:
        transport.write(start)
    elif len(reply.body) <= SMALL:
        transport.write(start + reply.body)
    else:
        transport.writelines((start, reply.body))


def _now() -> bytes:
    """The time as headers tell it, made once a second."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = second, formatdate(second, usegmt=True).encode()
    return _date[1]
