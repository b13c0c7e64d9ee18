"""What an Arrow IPC stream says of itself, read before anything in it is decoded.

A stream can ask for far more memory than it has bytes: each compressed buffer names its own decompressed length, and
the tables of a FlatBuffer may point at one another, so that few bytes describe millions of fields. pyarrow has no limit
for either (nor a memory pool with one), so the messages are walked here first and refused when they ask for too much.

Layout: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format and `format/{Message,Schema}.fbs`
of apache/arrow; slot numbers below are the order of the fields there.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from logs.errors import InvalidPage, PageTooLarge

T = TypeVar("T")

FILE_MAGIC = b"ARROW1"
CONTINUATION = 0xFFFFFFFF
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
EXTENSION = b"ARROW:extension:name"  # would have pyarrow run code of whoever registered that name

MAX_DECODED_BYTES = 128 * 1024**2
MAX_METADATA_BYTES = 1024**2  # a field needs some hundred bytes
MAX_FIELDS = 4096
MAX_TEXT_BYTES = 1024**2  # names and metadata, each counted as often as it is referred to
MAX_DEPTH = 16

SCHEMA, RECORD_BATCH = 1, 3  # MessageHeader
# Type: Null, Int, FloatingPoint, Utf8, Bool, Timestamp, List, Struct, FixedSizeList, LargeUtf8, LargeList. The others
# have no JSON form or, as views, dictionaries and run ends do, let one stored value stand for millions.
VALUE_TYPES = frozenset({1, 2, 3, 5, 6, 10, 12, 13, 16, 20, 21})
TIMESTAMP = 10


@dataclass(frozen=True)
class Envelope:
    """One checked stream: where it lies in the body, its schema message, how much it holds, and whether as it is."""

    stream: memoryview
    schema: bytes
    rows: int
    is_compressed: bool


def remembered(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Remembers what a schema message was found to be, because all pages of an edge begin with the same one.

    Only messages of a usual size: 256 of the largest would be too much memory.
    """
    read_once = lru_cache(maxsize=256)(read)
    return lambda message: read_once(message) if len(message) <= 16 * 1024 else read(message)


def open_envelope(body: bytes, *, max_rows: int) -> Envelope:
    """Finds the stream in `body` (an IPC stream, or an IPC file, which holds one) and bounds what decoding it takes.

    Raises `InvalidPage`, and `PageTooLarge` for more than `max_rows` rows or `MAX_DECODED_BYTES`.
    """
    view = _stream_in(memoryview(body))
    try:
        return _walk(view, max_rows)
    except (struct.error, IndexError) as exc:
        raise InvalidPage("The page is not an Arrow IPC stream: it ends in the middle of a message.") from exc


def _stream_in(view: memoryview) -> memoryview:
    """An IPC file is a stream between two magic words, with a footer that only random access needs."""
    if bytes(view[:6]) != FILE_MAGIC:
        return view
    if len(view) < 18 or bytes(view[-6:]) != FILE_MAGIC:
        raise InvalidPage("The page is an Arrow IPC file that was cut short.")
    end = len(view) - 10 - struct.unpack_from("<i", view, len(view) - 10)[0]
    if not 8 <= end <= len(view) - 10:
        raise InvalidPage("The page is an Arrow IPC file with a broken footer.")
    return view[8:end]


def _walk(view: memoryview, max_rows: int) -> Envelope:
    schema, rows, decoded, end, is_compressed = b"", 0, 0, 0, False
    for kind, header, metadata, content, stop in _messages(view):
        end = stop
        if kind == SCHEMA and not schema:
            schema = bytes(metadata)
            _check_schema(schema)
        elif kind == RECORD_BATCH and schema:
            rows += _row_count(header)
            is_compressed = is_compressed or _is_compressed(header)
            decoded += _decoded_length(header, content)
            if decoded > MAX_DECODED_BYTES:
                raise PageTooLarge(
                    f"A page may hold at most {MAX_DECODED_BYTES} bytes when decompressed: send fewer rows a page.",
                    limit=MAX_DECODED_BYTES,
                )
            if rows > max_rows:
                raise PageTooLarge(f"A page may hold at most {max_rows} rows: send it in parts.", limit=max_rows)
        else:
            raise InvalidPage("A page holds one schema and record batches; dictionaries are not accepted.")
    if not schema:
        raise InvalidPage("The page is empty: it has no Arrow schema.")
    if bytes(view[end : end + 8]) == END_OF_STREAM:
        end += 8
    return Envelope(stream=view[:end], schema=schema, rows=rows, is_compressed=is_compressed)


def _messages(view: memoryview) -> Iterator[tuple[int, "_Table", memoryview, memoryview, int]]:
    """Each message: kind, header, metadata, body, and where in the stream it ends."""
    position = 0
    while position < len(view):
        marker, length = struct.unpack_from("<II", view, position)
        if marker != CONTINUATION:
            raise InvalidPage("The page is not an Arrow IPC stream.")
        position += 8
        if length == 0:  # END_OF_STREAM
            return
        if length > MAX_METADATA_BYTES:
            raise InvalidPage(f"The page describes itself with more than {MAX_METADATA_BYTES} bytes.")
        metadata = view[position : position + length]
        message = _Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
        begin = position + length
        position = begin + message.scalar(3, "<q")
        if not begin <= position <= len(view):
            raise struct.error("the body of a message ends beyond the stream")
        _Budget().spend_on(message.tables(4))
        header = message.table(2)
        if header is None:
            raise InvalidPage("The page holds a message without a header.")
        yield message.scalar(1, "<B"), header, metadata, view[begin:position], position


def _row_count(batch: "_Table") -> int:
    count = batch.scalar(0, "<q")
    if count < 0:
        raise InvalidPage("The page holds a record batch of negative length.")
    return count


def _is_compressed(batch: "_Table") -> bool:
    return batch.table(3) is not None


def _decoded_length(batch: "_Table", content: memoryview) -> int:
    """Bytes of a record batch's buffers when decompressed; a buffer's length stands before it, -1 for "as it is"."""
    begin, count = batch.vector(2)
    is_compressed = _is_compressed(batch)
    total = 0
    for index in range(count):
        offset, length = struct.unpack_from("<qq", batch.data, begin + 16 * index)
        if offset < 0 or length < 0 or offset + length > len(content):
            raise struct.error("a buffer lies outside its message")
        if is_compressed and length:
            declared = struct.unpack_from("<q", content, offset)[0]
            if declared < -1:
                raise InvalidPage("The page holds a compressed buffer of negative length.")
            length = declared if declared >= 0 else length
        total += length
    return total


class _Budget:
    """How many fields and how much text a schema may still have."""

    def __init__(self) -> None:
        self.fields = MAX_FIELDS
        self.text = MAX_TEXT_BYTES

    def spend(self, *, fields: int = 0, text: int = 0) -> None:
        self.fields -= fields
        self.text -= text
        if self.fields < 0 or self.text < 0:
            raise InvalidPage(f"A page may have at most {MAX_FIELDS} fields and {MAX_TEXT_BYTES} bytes of names.")

    def spend_on(self, pairs: "Iterator[_Table]") -> None:
        """Pays for key-value metadata."""
        for pair in pairs:
            self.spend(fields=1, text=pair.vector(0)[1] + pair.vector(1)[1])


@remembered
def _check_schema(metadata: bytes) -> None:
    view = memoryview(metadata)
    schema = _Table(view, struct.unpack_from("<I", view, 0)[0]).table(2)
    if schema is None:
        raise InvalidPage("The page holds a schema message without a schema.")
    budget = _Budget()
    budget.spend_on(schema.tables(2))
    for field in schema.tables(1):
        _check_field(field, budget, depth=1)


def _check_field(field: "_Table", budget: _Budget, depth: int) -> None:
    budget.spend(fields=1, text=field.vector(0)[1])
    budget.spend_on(field.tables(6))
    is_extension = any(pair.text(0) == EXTENSION for pair in field.tables(6))
    if depth > MAX_DEPTH:
        raise InvalidPage(f"The page nests its columns more than {MAX_DEPTH} deep.")
    kind, value_type = field.scalar(2, "<B"), field.table(3)
    if kind not in VALUE_TYPES or value_type is None or is_extension or field.table(4) is not None:
        raise InvalidPage(
            "A column of the page has a type that logs cannot hold: use booleans, whole and floating-point numbers, "
            "strings, and lists and structs of them."
        )
    if kind == TIMESTAMP and value_type.vector(1)[1]:
        raise InvalidPage("A timestamp of the page has a time zone: times are UTC, without a zone.")
    for child in field.tables(5):
        _check_field(child, budget, depth + 1)


@dataclass(frozen=True, slots=True)
class _Table:
    """A FlatBuffer table. Absent slots read as 0, None or nothing; what lies outside the data raises `struct.error`."""

    data: memoryview
    at: int

    def _slot(self, number: int) -> int:
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        if vtable < 0:
            raise struct.error("a table lies outside its message")
        if 4 + 2 * number >= struct.unpack_from("<H", self.data, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self.data, vtable + 4 + 2 * number)[0]
        return self.at + offset if offset else 0

    def scalar(self, number: int, layout: str) -> int:
        slot = self._slot(number)
        value: int = struct.unpack_from(layout, self.data, slot)[0] if slot else 0
        return value

    def table(self, number: int) -> "_Table | None":
        slot = self._slot(number)
        return _Table(self.data, slot + struct.unpack_from("<I", self.data, slot)[0]) if slot else None

    def vector(self, number: int) -> tuple[int, int]:
        """Where a vector or string begins and how many elements it says to have."""
        slot = self._slot(number)
        if not slot:
            return 0, 0
        begin = slot + struct.unpack_from("<I", self.data, slot)[0]
        return begin + 4, struct.unpack_from("<I", self.data, begin)[0]

    def text(self, number: int) -> bytes:
        begin, count = self.vector(number)
        return bytes(self.data[begin : begin + count])

    def tables(self, number: int) -> "Iterator[_Table]":
        begin, count = self.vector(number)
        for position in range(begin, begin + 4 * count, 4):
            yield _Table(self.data, position + struct.unpack_from("<I", self.data, position)[0])
