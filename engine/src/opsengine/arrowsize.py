"""How much memory a compressed Arrow body would take, found before any of it is taken.

Arrow IPC writes each compressed buffer with its unpacked length in front, so a small body can claim any size. The walk
reads only message headers (Arrow columnar format, Message.fbs): the numbers below are flatbuffer slots of that schema.
"""

import struct
from collections.abc import Iterator

import pyarrow as pa
from flatbuffers import encode, number_types, packer  # type: ignore[import-untyped]
from flatbuffers.table import Table  # type: ignore[import-untyped]

from opsengine.errors import RequestError

FILE_HEAD = b"ARROW1\0\0"  # the magic word and two bytes of padding
FILE_END = struct.Struct("<i6s")  # the footer's length, and the magic word again
BLOCK = struct.Struct("<qi4xq")  # of a footer: offset, bytes of the metadata, bytes of the body
DICTIONARIES, RECORD_BATCHES = 8, 10  # Footer
HEADER_TYPE, HEADER, BODY_LENGTH = 6, 8, 10  # Message
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # MessageHeader
BUFFERS, COMPRESSION = 8, 10  # RecordBatch
DICTIONARY_DATA = 6  # DictionaryBatch


def check(stream: pa.Buffer, limit: int) -> None:
    """Raise RequestError (413) if the Arrow stream would unpack to more than `limit` bytes."""
    total = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type in ("record batch", "dictionary"):
            total += _unpacked(message)
        if total > limit:
            raise RequestError(f"The Arrow body unpacks to more than {limit} bytes: send fewer rows at a time.", 413)


def check_file(body: bytes, limit: int) -> None:
    """The same for an Arrow file whose footer was read and found right (`pa.ipc.open_file`).

    Raises ValueError where messages overlap: a footer that names one of them many times would multiply it.
    """
    total = end = 0
    for offset, head, length in sorted(_blocks(body)):
        if min(offset, head, length) < 0 or offset < end:
            raise ValueError("its footer tells of messages that overlap")
        end = offset + head + length
        total += _unpacked(pa.ipc.read_message(pa.py_buffer(body)[offset:end]))
        if total > limit:
            raise RequestError(f"The Arrow body unpacks to more than {limit} bytes: send fewer rows at a time.", 413)


def _blocks(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Where the footer says that dictionaries and record batches are."""
    length, _ = FILE_END.unpack_from(body, len(body) - FILE_END.size)
    footer = body[len(body) - FILE_END.size - length : len(body) - FILE_END.size]
    root = Table(footer, encode.Get(packer.uoffset, footer, 0))
    for slot in (DICTIONARIES, RECORD_BATCHES):
        at = root.Offset(slot)
        for index in range(root.VectorLen(at) if at else 0):
            yield BLOCK.unpack_from(footer, root.Vector(at) + BLOCK.size * index)


def _unpacked(message: pa.Message) -> int:
    batch = _record_batch(message.metadata.to_pybytes())
    if batch is None or not batch.Offset(COMPRESSION):
        return message.body.size if message.body else 0
    at = batch.Offset(BUFFERS)
    content, total = message.body, 0
    for index in range(batch.VectorLen(at) if at else 0):
        place = batch.Vector(at) + 16 * index  # struct Buffer {offset: int64, length: int64}
        offset = batch.Get(number_types.Int64Flags, place)
        length = batch.Get(number_types.Int64Flags, place + 8)
        if length >= 8 and 0 <= offset <= content.size - 8:
            unpacked = encode.Get(packer.int64, content[offset : offset + 8].to_pybytes(), 0)
            total += max(int(unpacked), int(length))  # -1 marks a buffer that is not compressed
    return total


def spans(metadata: bytes) -> list[tuple[int, int]] | None:
    """Offset and length of each buffer behind the metadata of a record batch that is not compressed; else None."""
    root = Table(metadata, encode.Get(packer.uoffset, metadata, 0))
    kind_at = root.Offset(HEADER_TYPE)
    if not kind_at or root.Get(number_types.Uint8Flags, root.Pos + kind_at) != RECORD_BATCH:
        return None
    batch = _record_batch(metadata)
    if batch is None or batch.Offset(COMPRESSION):
        return None
    at = batch.Offset(BUFFERS)
    places = [batch.Vector(at) + 16 * index for index in range(batch.VectorLen(at) if at else 0)]
    read = number_types.Int64Flags
    return [(int(batch.Get(read, place)), int(batch.Get(read, place + 8))) for place in places]


def body_length(metadata: bytes) -> int:
    """Bytes behind the metadata of a message."""
    root = Table(metadata, encode.Get(packer.uoffset, metadata, 0))
    at = root.Offset(BODY_LENGTH)
    return int(root.Get(number_types.Int64Flags, root.Pos + at)) if at else 0


def _record_batch(metadata: bytes) -> Table | None:
    root = Table(metadata, encode.Get(packer.uoffset, metadata, 0))
    kind_at, header_at = root.Offset(HEADER_TYPE), root.Offset(HEADER)
    if not kind_at or not header_at:
        return None
    kind = root.Get(number_types.Uint8Flags, root.Pos + kind_at)
    header = Table(metadata, root.Indirect(root.Pos + header_at))
    if kind == RECORD_BATCH:
        return header
    data_at = header.Offset(DICTIONARY_DATA) if kind == DICTIONARY_BATCH else 0
    return Table(metadata, header.Indirect(header.Pos + data_at)) if data_at else None
