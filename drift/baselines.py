"""The numbers that an assay compares with: of a time range of the logs, or from a file."""

import io
import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from django.utils.translation import gettext as _

from common.errors import Invalid, TooLarge
from drift.measures import Floats
from logs import envelope, paths, scans

MAX_BYTES = 10 * 1024**2
MAX_NUMBERS = 1_000_000
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
FILE = "file"


def read(body: bytes, field: str, column: str = "") -> Floats:
    """The finite numbers of a file's column: Arrow IPC (file or stream), pandas-records JSON, or CSV.

    The column is `column`, or is found as the field, by its name alone, or as the only one. Raises `Invalid`,
    `TooLarge`.
    """
    if len(body) > MAX_BYTES:
        raise TooLarge(
            _("A baseline may have at most %(max_bytes)s bytes.") % {"max_bytes": MAX_BYTES}, limit=MAX_BYTES
        )
    table = _table(body)
    place, source = _place(table, field, column)
    values = _numbers(place.array(source), place)
    if len(values) > MAX_NUMBERS:
        raise TooLarge(
            _("A baseline may have at most %(max_numbers)s numbers.") % {"max_numbers": MAX_NUMBERS}, limit=MAX_NUMBERS
        )
    return values


def packed(values: Floats) -> bytes:
    """Numbers as they are stored."""
    return zlib.compress(values.astype("<f8").tobytes())


def unpacked(data: bytes | memoryview) -> Floats:
    """What `packed` made."""
    return np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)


def _table(body: bytes) -> pa.Table:
    try:
        if body.startswith(ARROW):
            outside = envelope.open_envelope(body, max_rows=MAX_NUMBERS)
            with pa.ipc.open_stream(pa.py_buffer(outside.stream)) as reader:
                table = reader.read_all()
            table.validate(full=True)
            return table
        if body.lstrip()[:1] in (b"[", b"{"):
            return _of_json(json.loads(body))
        body.decode()  # also the names of columns must be text
        return pa_csv.read_csv(io.BytesIO(body))
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as exc:
        raise Invalid(_("The file is neither Arrow, nor pandas-records JSON, nor CSV with a head.")) from exc


def _of_json(given: object) -> pa.Table:
    """Records, or a plain list of numbers."""
    rows = given if isinstance(given, list) else []
    if all(isinstance(row, dict) for row in rows):
        return pa.Table.from_pylist(rows)
    return pa.table({"value": pa.array(rows, pa.float64())})


def _place(table: pa.Table, field: str, column: str) -> tuple[paths.Place, pa.Table]:
    """Where the column is, in the table itself (rows of logs) or in one that has it as a struct's field."""
    only = table.column_names[0] if len(table.column_names) == 1 else ""
    bare = field.partition(".")[2]
    names = [column] if column else [field, bare, bare.partition("[")[0], only]
    whole = pa.table({FILE: pa.chunked_array([table.combine_chunks().to_struct_array().combine_chunks()])})
    for name in filter(None, names):
        for source, path in ((table, name), (whole, f"{FILE}.{name}")):
            place = paths.find(source.schema, path)
            if place and place.is_number:
                return place, source
    raise Invalid(
        _("The file has no column of numbers for %(column)s: say which with column=.") % {"column": column or field}
    )


def _numbers(column: pa.ChunkedArray, place: paths.Place) -> Floats:
    value = f"unnest({place.value('c')})" if place.is_many else place.value("c")
    with scans.open_connection() as connection:
        connection.register("file", pa.table({"c": column}))
        every = f"SELECT CAST({value} AS DOUBLE) AS n FROM file"
        found = connection.execute(f"SELECT n FROM ({every}) WHERE isfinite(n)").fetchnumpy()["n"]
    return np.asarray(found, dtype=np.float64)
