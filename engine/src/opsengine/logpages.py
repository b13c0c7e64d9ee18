"""A page of the log store: its rows as bytes, and what pages of one kind share as a description.

Rows of numbers only, which nearly all are, are kept as they were answered, a column after another (opsengine.chunks):
what is the same in all of them stands in the description, and Arrow is made of them when they are read. A body is

    u32 rows | u32 stages | u32 lengths of axes | i64 times, a row | i64 elapsed, rows x stages | the columns

in LZ4, which costs next to nothing where numbers have nothing to give, and finds repeated ones as well as others do.
Other rows are an Arrow record batch in Zstandard; their description is its schema.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa

from opsengine import chunks, rows
from opsengine.chunks import Chunk, Columns
from opsengine.errors import DamagedPage
from opsengine.fields import Array

COLUMNS_CODEC, BATCH_CODEC = "lz4", "zstd"
BATCH_SCHEMA = b"\xff\xff\xff\xff"  # an Arrow IPC message begins so, and no JSON does
MOST_BYTES = 4 * 2**20  # of a page, before compression: well below the 10 MiB of a wire page
MOST_ROWS = 1000
# What Arrow, numpy and JSON say of bytes that are none of theirs.
FAULTS = (
    pa.ArrowException, OSError, EOFError, ValueError, TypeError, LookupError, OverflowError, SyntaxError, struct.error
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one kind. Times are epoch ms, `size` is that of the body before compression."""

    pipeline_version: str
    described: bytes
    count: int
    time_min: int
    time_max: int
    body: bytes
    size: int


def of_chunks(some: Sequence[Chunk], most: int = MOST_BYTES) -> list[Page]:
    """Chunks of one kind as pages of up to `most` bytes, or a row.

    Raises pa.ArrowException, ValueError or TypeError for what Arrow cannot hold.
    """
    if some[0].kind.is_even:
        return list(_of_columns(chunks.joined(some), most))
    batch = rows.to_batch(chunks.whole(some))
    step = _rows_of_page(batch.nbytes, batch.num_rows, most)
    version = some[0].kind.facts.version
    return [of_batch(version, batch.slice(at, step)) for at in range(0, batch.num_rows, step)]


def of_batch(pipeline_version: str, batch: pa.RecordBatch) -> Page:
    """A record batch as a page."""
    times = batch.column("time").view(pa.int64()).to_numpy()
    message = batch.serialize()
    body = pa.compress(message, codec=BATCH_CODEC, asbytes=True)
    described = batch.schema.serialize().to_pybytes()
    return Page(pipeline_version, described, len(times), int(times.min()), int(times.max()), body, message.size)


def _of_columns(columns: Columns, most: int) -> Iterator[Page]:
    kind, times, elapsed, values = columns
    arrays = [times, elapsed, *map(np.asarray, values)]
    lengths = [length for array in arrays for length in array.shape[1:]]
    step = _rows_of_page(sum(array.nbytes for array in arrays), len(times), most)
    for at in range(0, len(times), step):
        some = times[at : at + step]
        head = struct.pack(f"<{1 + len(lengths)}I", len(some), *lengths)
        told = b"".join([head, *(array[at : at + step].data for array in arrays)])
        body = pa.compress(told, codec=COLUMNS_CODEC, asbytes=True)
        yield Page(kind.facts.version, kind.described, len(some), int(some.min()), int(some.max()), body, len(told))


def _rows_of_page(size: int, count: int, most: int) -> int:
    return max(1, min(MOST_ROWS, most * count // max(1, size)))


def batch_of(described: bytes, body: bytes, size: int, count: int) -> pa.RecordBatch:
    """The `count` rows of a page. Raises DamagedPage."""
    try:
        batch = _read(described, body, size)
    except FAULTS as error:
        raise DamagedPage(str(error)) from error
    if batch.num_rows != count:
        raise DamagedPage(f"{batch.num_rows} rows instead of {count}")
    return batch


def _read(described: bytes, body: bytes, size: int) -> pa.RecordBatch:
    if described.startswith(BATCH_SCHEMA):
        message = pa.decompress(body, decompressed_size=size, codec=BATCH_CODEC)
        batch = pa.ipc.read_record_batch(message, pa.ipc.read_schema(pa.py_buffer(described)))
        batch.validate(full=True)  # places of texts and lists that are not there end the process, when they are used
        return batch
    told = pa.decompress(body, decompressed_size=size, codec=COLUMNS_CODEC)
    kind = chunks.kind_again(described)
    forms = [("<i8", 0), ("<i8", 1), *((column.form, len(column.shape)) for column in kind.columns)]
    times, elapsed, *values = _arrays(told, forms)
    return rows.to_batch(chunks.as_rows(Columns(kind, times, elapsed, values)))


def _arrays(told: pa.Buffer, forms: Sequence[tuple[str, int]]) -> Iterator[Array]:
    """The arrays in a body. `forms`: the type of each, and how many axes a row of it has."""
    head = struct.Struct(f"<{1 + sum(axes for _, axes in forms)}I")
    count, *lengths = head.unpack_from(told)
    at = head.size
    for form, axes in forms:
        of, shape, lengths = np.dtype(form), (count, *lengths[:axes]), lengths[axes:]
        array = np.frombuffer(told, of, prod(shape), at)
        yield np.require(array, requirements="A").reshape(shape)
        at += array.nbytes
