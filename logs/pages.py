"""The codec of pages: one Arrow IPC stream of rows in, checked; one out.

A page's bytes are kept as they came where that is possible, because decoding to check is cheaper than encoding again.
What came uncompressed is compressed: it would take five times the room.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from logs import envelope, schemas
from logs.errors import InvalidPage, PageTooLarge

MAX_ROWS = 10_000
MAX_BYTES = 10 * 1024**2
PLAIN_BYTES = 16 * 1024  # so much may stay uncompressed: there is little to gain
LATEST_TIME = 253_402_300_799_999  # the end of the year 9999, epoch ms: the last that Python can show

_READ = pa.ipc.IpcReadOptions(use_threads=False)  # a page has few rows: a thread costs more than it brings
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Page:
    """A checked page. Times are epoch ms; `body` is an Arrow IPC stream."""

    body: bytes
    table: pa.Table
    schema_id: str
    time_min: int
    time_max: int

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def after(self, skip: int) -> "Page":
        """The page without its first `skip` rows, encoded again."""
        return _page(self.table.slice(skip), self.schema_id, None) if skip else self


def check(body: bytes, *, pipeline_version: str, partition: str) -> Page:
    """Decodes a page once and checks all of it. The partition of every row becomes `partition`, whatever the body says.

    Raises `InvalidPage` (not a page, another pipeline version, unusable columns) and `PageTooLarge`.
    """
    if len(body) > MAX_BYTES:
        raise PageTooLarge(f"A page may have at most {MAX_BYTES} bytes: send it in parts.", limit=MAX_BYTES)
    outside = envelope.open_envelope(body, max_rows=MAX_ROWS)
    if outside.rows == 0:
        raise InvalidPage("The page has no rows.")
    table, schema_id = _decode(outside)
    if weight(table) > envelope.MAX_DECODED_BYTES:
        raise PageTooLarge(
            f"A page may hold at most {envelope.MAX_DECODED_BYTES} bytes when decoded: send fewer rows a page.",
            limit=envelope.MAX_DECODED_BYTES,
        )
    _check_pipeline_version(table, pipeline_version)
    is_kept = outside.is_compressed or len(outside.stream) <= PLAIN_BYTES
    if not _is_everywhere(table, "partition", partition):
        table, is_kept = _with_partition(table, partition), False
    return _page(table, schema_id, _bytes_of(outside.stream, body) if is_kept else None)


def read(body: bytes) -> pa.Table:
    """The rows of a stored page, which was checked when it came."""
    with pa.ipc.open_stream(pa.py_buffer(body), options=_READ) as reader:
        return reader.read_all()


def encode(table: pa.Table) -> bytes:
    """One Arrow IPC stream, its buffers compressed with zstd."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_WRITE) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def weight(data: pa.Table | pa.ChunkedArray | pa.Array) -> int:
    """Bytes of decoded rows, not of a slice of some.

    Every value counts for at least four, because one that needs no bytes here (a null in a list, a bit) does need them
    as JSON or as a Python object.
    """
    if isinstance(data, pa.Table):
        return sum(weight(column) for column in data.columns)
    if isinstance(data, pa.ChunkedArray):
        return sum(weight(chunk) for chunk in data.chunks)
    if pa.types.is_struct(data.type):
        return 4 * len(data) + sum(weight(data.field(index)) for index in range(data.type.num_fields))
    if pa.types.is_list(data.type) or pa.types.is_large_list(data.type) or pa.types.is_fixed_size_list(data.type):
        return 4 * len(data) + weight(data.values)
    return max(4 * len(data), int(data.get_total_buffer_size()))


def _bytes_of(stream: memoryview, body: bytes) -> bytes:
    """The stream on its own, without a copy where it is all there is."""
    return body if len(stream) == len(body) else bytes(stream)


def _decode(outside: envelope.Envelope) -> tuple[pa.Table, str]:
    try:
        with pa.ipc.open_stream(pa.py_buffer(outside.stream), options=_READ) as reader:
            table = reader.read_all()
        table.validate(full=True)  # offsets and UTF-8 too: what is wrong there would crash a reader later
        schema_id = schemas.checked_id(outside.schema)
    except _UNREADABLE as exc:
        raise InvalidPage("The page cannot be decoded as an Arrow IPC stream.") from exc
    return table, schema_id


def _page(table: pa.Table, schema_id: str, body: bytes | None) -> Page:
    times = table.column("time")
    if times.null_count:
        raise InvalidPage("The page has rows without a time.")
    bounds = pc.min_max(times.cast(pa.int64()))
    earliest, latest = bounds["min"].as_py(), bounds["max"].as_py()
    if earliest < 0 or latest > LATEST_TIME:
        raise InvalidPage("The page has times before 1970 or after 9999: times are epoch milliseconds.")
    return Page(
        body=encode(table) if body is None else body,
        table=table,
        schema_id=schema_id,
        time_min=earliest,
        time_max=latest,
    )


def _texts(table: pa.Table, name: str) -> list[pa.Array]:
    """A field of `metadata`, null where the whole struct is."""
    chunks = table.column("metadata").chunks
    return [chunk.flatten()[chunk.type.get_field_index(name)] for chunk in chunks]


def _is_everywhere(table: pa.Table, name: str, value: str) -> bool:
    chunks = _texts(table, name)
    return all(pc.all(pc.equal(chunk, value), skip_nulls=False).as_py() for chunk in chunks if len(chunk))


def _check_pipeline_version(table: pa.Table, expected: str) -> None:
    if not _is_everywhere(table, "pipeline_version", expected):
        raise InvalidPage(f"The page has rows whose metadata.pipeline_version is not {expected}: send them apart.")


def _with_partition(table: pa.Table, partition: str) -> pa.Table:
    """The table with that partition in every row. No `metadata` is null: each has a pipeline version by now."""
    position = table.schema.get_field_index("metadata")
    field = table.schema.field(position)
    at = field.type.get_field_index("partition")
    chunks = []
    for chunk in table.column(position).chunks:
        children = chunk.flatten()
        children[at] = pa.repeat(pa.scalar(partition, field.type.field(at).type), len(chunk))
        chunks.append(pa.StructArray.from_arrays(children, fields=list(field.type)))
    return table.set_column(position, field, pa.chunked_array(chunks, type=field.type))
