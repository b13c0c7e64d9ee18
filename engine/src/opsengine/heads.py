"""Heads of requests that were read before: callers send the same ones, byte for byte, again and again.

To have the parser read a head costs a fifth of a small request. The same bytes are the same head, whichever line they
come on, so what they say is kept, of plain ones: HTTP/1.1, with the body's size told, on a line that stays.
"""

from typing import NamedTuple

from opsengine.kept import Kept

END = b"\r\n\r\n"
LONGEST = 2**12  # bytes of a head that is kept


class Head(NamedTuple):
    """What a head says of its request. `size` is that of the body."""

    method: str
    path: str
    query: str
    content_type: str
    accept: str
    encoding: str
    size: int


_known = Kept[bytes, Head]()


def find(data: bytes) -> tuple[Head, bytes] | None:
    """The head and the body of a request that is all there is in `data`, if its head is known."""
    end = data.find(END) + len(END)
    head = _known.get(data[:end])
    return (head, data[end:]) if head is not None and len(data) - end == head.size else None


def keep(data: bytes, head: Head) -> None:
    """Remember that all of `data` is one request with this head."""
    end = len(data) - head.size
    if end <= LONGEST and data.find(END) + len(END) == end:
        _known.keep(data[:end], head, end)
