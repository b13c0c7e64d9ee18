"""Request bodies to columns: pandas-records JSON, Arrow files and streams."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NoReturn

import numpy as np
import orjson
import pyarrow as pa

from opsengine import arrowplaces, arrowsize, fields, tensors, vectors
from opsengine.errors import RequestError
from opsengine.fields import Field, Sent

JSON, ARROW = "json", "arrow"
KINDS = {
    "application/json": JSON,
    "application/vnd.apache.arrow.file": ARROW,
    "application/vnd.apache.arrow.stream": ARROW,
}
ARROW_MAGIC = b"ARROW1"
EMPTY = "The request has no body: send records, or an Arrow file."
ROWLESS = "The request holds no rows: send at least one."
BARE = "The request's rows hold no columns."
FILE_HEAD = len(arrowsize.FILE_HEAD)
MARK = b"\xff\xff\xff\xff"  # before each message of a stream


@dataclass(frozen=True, slots=True)
class Batch:
    """The columns of a request, each with `count` rows. `sent` has those of a JSON body as its caller wrote them."""

    count: int
    columns: Mapping[str, Field]
    sent: Mapping[str, Sent]


def kind_of(content_type: str, body: bytes) -> str:
    """Which decoder a body needs. Raises RequestError (415) for types that are not understood."""
    name = _media_type(content_type)
    if not name:
        return ARROW if body.startswith(ARROW_MAGIC) else JSON
    if name not in KINDS:
        known = "application/json; format=pandas-records or application/vnd.apache.arrow.file"
        raise RequestError(f"Content-Type {name[:100]!r} is not understood: send {known}.", 415)
    return KINDS[name]


@lru_cache(64)
def _media_type(content_type: str) -> str:
    """The type without its parameters; kept, because callers send the same ones again and again."""
    name = content_type.split(";", 1)[0].strip().lower()
    while name.startswith("content-type:"):  # the documented curl lines send the header's name twice
        name = name.removeprefix("content-type:").strip()
    return name


def read(body: bytes, kind: str, limit: int) -> Batch:
    """Columns of a body; `limit` bounds what a compressed body may unpack to, in bytes. Raises RequestError."""
    if kind == JSON:
        known = vector(body)
        return of_records(records(body)) if known is None else of_vector(known)
    if not body:
        raise RequestError(EMPTY)
    batch = _read_arrow(body, limit)
    if not batch.count:
        raise RequestError(ROWLESS)
    if not batch.columns:
        raise RequestError(BARE)
    return batch


def vector(body: bytes) -> vectors.Column | None:
    """The column of a body in JSON that is read as text; None for those that `records` reads."""
    return vectors.read(body) if len(body) >= vectors.LEAST_BODY else None


def of_vector(column: vectors.Column) -> Batch:
    """Rows of one column that were read as text."""
    return Batch(len(column.numbers), {column.name: column.numbers}, {column.name: column.sent})


def records(body: bytes) -> list[Any]:
    """The rows of a body in JSON, at least one, the first of them a record. Raises RequestError."""
    if not body:
        raise RequestError(EMPTY)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    if not isinstance(found, list) or (found and not isinstance(found[0], dict)):
        raise RequestError('The body must be a list of records, like [{"tensor": [1.0, 2.0]}].')
    if not found:
        raise RequestError(ROWLESS)
    return found


def of_records(records: list[Any]) -> Batch:
    """Rows, the first of them a record, in columns. Raises RequestError where one has others than the first."""
    names = list(records[0])
    if not names:
        raise RequestError(BARE)
    columns: dict[str, list[object]] = {}
    for name in names:
        try:
            columns[name] = list(map(itemgetter(name), records))
        except (KeyError, TypeError):
            raise RequestError(f'Column "{name}" is missing in row {_first_without(records, name)}.') from None
    # Each row has a value under a name, so each is a record: nothing else in JSON has names.
    if set(map(len, records)) != {len(names)}:
        _refuse_uneven(records, set(names))
    return Batch(len(records), columns, columns)


def _refuse_uneven(records: list[dict[str, object]], names: set[str]) -> NoReturn:
    row = next(row for row, record in enumerate(records) if len(record) != len(names))
    extra = min(set(records[row]) - names)
    raise RequestError(f'Column "{extra}" of row {row} is missing in row 0: all rows need the same columns.')


def _first_without(records: list[object], name: str) -> int:
    return next(row for row, record in enumerate(records) if not isinstance(record, dict) or name not in record)


def _read_arrow(body: bytes, limit: int) -> Batch:
    # A file is a stream between a magic word and a footer. Reading it as the stream keeps to what was measured: a
    # footer may point elsewhere.
    begin = FILE_HEAD if body.startswith(ARROW_MAGIC) else 0
    known = arrowplaces.read(body, begin, limit)
    if known is not None:
        return Batch(*known, {})
    try:
        table = _table(body, begin, limit)
        table.validate(full=True)  # offsets of an untrusted file may point anywhere
    except (pa.ArrowException, ValueError, OSError, IndexError, EOFError) as error:
        raise RequestError(f"The body is not a readable Arrow file: {_first_line(error)}.") from None
    if len(set(table.column_names)) != table.num_columns:
        raise RequestError("The Arrow file has two columns of the same name.")
    if not table.num_rows:
        return Batch(0, {}, {})
    arrowsize.check_rows(table.num_rows, limit)
    columns = {field.name: _column(table, field, limit) for field in table.schema}
    arrowplaces.learn(body, begin, table.schema, columns, table.num_rows)
    return Batch(table.num_rows, columns, {})


def _table(body: bytes, begin: int, limit: int) -> pa.Table:
    if begin and body[begin : begin + len(MARK)] != MARK:  # polars puts no stream into its files: the footer tells all
        reader = pa.ipc.open_file(body)
        arrowsize.check_file(body, limit)
        return reader.read_all()
    stream = pa.py_buffer(body)[begin:]
    arrowsize.check(stream, limit)
    return pa.ipc.open_stream(stream).read_all()


def _column(table: pa.Table, field: pa.Field, limit: int) -> Field:
    name = field.name
    try:
        values = fields.from_arrow(_whole(table.column(name)), lambda array: arrowsize.check_values(array, limit, name))
    except fields.UNREADABLE as error:
        raise RequestError(
            f'Column "{name}" of type {str(field.type)[:100]} cannot be read: {_first_line(error)}.'
        ) from None
    shape = tensors.told_shape(field)
    if isinstance(values, np.ndarray):
        arrowsize.check_shape(values.shape if shape is None else (len(values), *shape), limit, name)
    return tensors.in_shape(values, shape, name)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
