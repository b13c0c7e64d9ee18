"""How much memory an Arrow body would take, found before any of it is taken.

Arrow IPC writes each compressed buffer with its unpacked length in front, so a small body can claim any size. The walk
reads only message headers (Arrow columnar format, Message.fbs): the numbers below are flatbuffer slots of that schema.
What is open already can still claim more values than it has bytes: nulls and empty lists take none, and words of a
dictionary stand for many.
"""

import struct
from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
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
ROW_BYTES = 8  # the least that a row counts for: the shortest of a JSON body, `{"":0},`
VALUE_BYTES = 4  # the least that a value counts for where it becomes a Python object: an offset

TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)

Lengths = npt.NDArray[np.int64]


def check(stream: pa.Buffer, limit: int) -> None:
    """Raise RequestError (413) if the Arrow stream would unpack to more than `limit` bytes."""
    total = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.type in ("record batch", "dictionary"):
            total += _unpacked(message)
        if total > limit:
            raise RequestError(f"The Arrow body unpacks to more than {limit} bytes: send fewer rows at a time.", 413)


def check_rows(count: int, limit: int) -> None:
    """Raise RequestError (413) for more rows than JSON of `limit` bytes could hold."""
    if count * ROW_BYTES > limit:
        raise RequestError(f"The Arrow body holds more than {limit // ROW_BYTES} rows: send fewer at a time.", 413)


def check_shape(shape: tuple[int, ...], limit: int, name: str) -> None:
    """Raise RequestError (413) for arrays of nothing with so many empty lists that they take more than `limit`."""
    if 0 in shape and prod(length or 1 for length in shape) * VALUE_BYTES > limit:
        raise RequestError(f'Column "{name}" holds too many empty lists: send fewer rows at a time.', 413)


def check_values(array: pa.Array, limit: int, name: str) -> None:
    """Raise RequestError (413) if the column's values, each on its own, would take more than `limit` bytes."""
    if _weight(array, name) > limit:
        raise RequestError(f'Column "{name}" unpacks to more than {limit} bytes: send fewer rows at a time.', 413)


def _weight(array: pa.Array, name: str) -> int:
    """Bytes of the values, each on its own. Raises RequestError for types whose values may lie over one another."""
    kind, own = array.type, VALUE_BYTES * len(array)
    if not own:  # nothing vouches for the offsets of no rows: Arrow ends the process where they point outside
        return 0
    if isinstance(array, pa.ExtensionArray):
        return _weight(array.storage, name)
    if pa.types.is_dictionary(kind):
        return own + _taken(array, name)
    if pa.types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        return own + sum(_weight(part.slice(start, end - start), name) for part in (array.keys, array.items))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return own + _weight(array.flatten(), name)
    if pa.types.is_struct(kind):
        return own + sum(_weight(array.field(at), name) for at in range(kind.num_fields))
    if pa.types.is_nested(kind) or pa.types.is_run_end_encoded(kind):
        raise RequestError(f'Column "{name}" has the type {str(kind)[:100]}, which is not taken: send plain lists.')
    lengths = _lengths(array)
    return own + (int(lengths.sum()) if lengths is not None else 0)


def _taken(array: pa.DictionaryArray, name: str) -> int:
    """Bytes of a dictionary's words, as often as they are used."""
    words = array.dictionary
    lengths = _lengths(words)
    if lengths is None:
        return len(array) * _weight(words, name) if pa.types.is_nested(words.type) else 0
    used = array.indices.drop_null().to_numpy(zero_copy_only=False)
    return int(lengths[used].sum())


def _lengths(array: pa.Array) -> Lengths | None:
    """Bytes of each text or binary value; None for other types."""
    kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        if not len(array):
            return np.zeros(0, np.int64)
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)  # the first of four is the length
        found = views[array.offset : array.offset + len(array), 0].astype(np.int64)
        found[~array.is_valid().to_numpy(zero_copy_only=False)] = 0  # what stands there means nothing
        return found
    if pa.types.is_fixed_size_binary(kind):
        return np.full(len(array), kind.byte_width, np.int64)
    if not any(is_kind(kind) for is_kind in TEXTS):
        return None
    lengths: Lengths = pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


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
