"""Full scans by DuckDB, over all rows of a pipeline and time range: for what no rollup can answer.

A scan is bounded in time and memory and says so when it would need more. Rows of every schema take part; where a schema
has no such field, or one of another type, its value is null.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from django.db.models import QuerySet
from django.utils.translation import gettext

from catalog.models import Pipeline
from common.errors import Conflict, Invalid, RateLimited, TooLarge
from logs import compaction, pages, paths, scan_segments
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.scan_segments import Stream, Wanted

SECONDS = 20.0
MEMORY = "512MB"
THREADS = 2
AT_ONCE = 2  # scans in a process
FETCHED_PAGES = 64
FETCHED_BYTES = 16 * 1024**2
TRIES = 3
MODEL = "TRY_CAST(last_model AS JSON) ->> '$.model_name'"

_turns = threading.BoundedSemaphore(AT_ONCE)


class TooSlow(Invalid):
    """The scan was broken off after `SECONDS`."""

    code = "too_slow"


@dataclass(frozen=True)
class Scope:
    """Which rows: from `start` until before `end` (epoch ms), those that `filters` let through; they have no times."""

    pipeline: Pipeline
    start: int
    end: int
    filters: Filters = field(default_factory=Filters)


class _Moved(Exception):
    """A page became a segment after it was listed."""


@contextmanager
def scan(scope: Scope, fields: Sequence[str] = (), seconds: float = SECONDS) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the view `found`: `t` (epoch ms), `edge`, `version`, `model`, and of each field two columns.

    The field at place n is `fn`, a DOUBLE (null when it is no number), and `sn`, its text. A field that is all elements
    of a list makes a row of each. Raises `Invalid` for a field that no row has, `TooSlow`, `TooLarge`, `RateLimited`
    when too many run.
    """
    if not _turns.acquire(timeout=seconds):
        raise RateLimited(gettext("Other scans of logs are running: try again in a minute."), retry_after=60)
    try:
        with open_connection() as connection, _bounded(connection, seconds):
            streams = _load(connection, scope, fields)
            try:
                yield connection
            except duckdb.InvalidInputException as exc:
                if any(stream.failures for stream in streams):
                    raise Conflict(
                        gettext("The rows are just being moved, or their store is away: try again.")
                    ) from exc
                raise
    finally:
        _turns.release()


@contextmanager
def open_connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """To a database in memory, which is bounded and reaches nothing else."""
    settings: dict[str, Any] = {
        "memory_limit": MEMORY,
        "threads": THREADS,
        # No code from elsewhere, and nothing written to disk.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": "",
        "preserve_insertion_order": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _bounded(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as exc:
        raise TooSlow(
            gettext("This takes longer than %(seconds)g seconds: ask for a shorter time or fewer edges.")
            % {"seconds": seconds}
        ) from exc
    except duckdb.IOException as exc:
        raise Conflict(gettext("The rows are just being moved: try again.")) from exc
    except duckdb.OutOfMemoryException as exc:
        raise TooLarge(
            gettext("This needs too much memory: ask for a shorter time or fewer edges."), limit=MEMORY
        ) from exc
    finally:
        timer.cancel()


def _load(connection: duckdb.DuckDBPyConnection, scope: Scope, fields: Sequence[str]) -> list[Stream]:
    """Makes the view, of copied pages and of files, which stay for long enough when they are let go.

    Answers the files that are read through this process.
    """
    wanted = Wanted(scope.start, scope.end, tuple(fields), scope.filters)
    for _ in range(TRIES):
        connection.execute(f"CREATE OR REPLACE TABLE live ({_columns(fields)})")
        before = compaction.changes_of(scope.pipeline)
        schemas: set[pa.Schema] = set()
        try:
            listed = scan_segments.there(_segments(scope))
            for table in _live_tables(scope):
                _insert(connection, wanted, table)
                schemas.add(table.schema)
            files, others = scan_segments.apart(listed, scope.filters)
            streams = scan_segments.streams(others, wanted)
            if compaction.changes_of(scope.pipeline) != before:
                continue
        except (_Moved, FileNotFoundError):
            continue
        schemas |= {some.schema for some in files} | {some.row_schema for some in streams}
        _check_known([*schemas], fields)
        parts = ["SELECT * FROM live", *(_selected(some, scope, fields) for some in files)]
        for at, stream in enumerate(streams):
            connection.register(f"stream{at}", stream)
            parts.append(_from_narrowed(f"stream{at}", stream.row_schema, wanted))
        connection.execute(f"CREATE VIEW found AS {' UNION ALL '.join(parts)}")
        return streams
    raise Conflict(gettext("The rows are just being moved: try again."))


def _segments(scope: Scope) -> list[LogSegment]:
    found = LogSegment.objects.filter(pipeline=scope.pipeline, removed_at=None)
    found = found.filter(time_max__gte=scope.start, time_min__lt=scope.end).order_by("pk")
    wants = scope.filters.wants_edge
    return [one for one in found if one.partitions is None or any(map(wants, one.partitions))]


def _selected(files: scan_segments.Files, scope: Scope, fields: Sequence[str]) -> str:
    """The rows of files, as the others are copied."""
    is_number = pa.types.is_int64(files.schema.field("time").type)
    time = '"time"' if is_number else 'epoch_ms("time")'
    bounds = [str(scope.start), str(scope.end)]
    first, last = bounds if is_number else (f"epoch_ms({bound}::BIGINT)" for bound in bounds)
    told = 'TRY_CAST("metadata"."last_model" AS JSON)'
    model = f"({told} ->> '$.model_name')"
    columns = [
        f"{time} AS t",
        '"metadata"."partition" AS edge',
        '"metadata"."pipeline_version" AS version',
        f"{model} AS model",
    ]
    for at, name in enumerate(fields):
        place = paths.find(files.schema, name)
        columns += _values(place, place.column if place else "", at)
    narrowed = scan_segments.in_sql(scope.filters, model, f"({told} ->> '$.model_sha')")
    within = f'"time" >= {first} AND "time" < {last} AND {narrowed}'
    return f"SELECT {', '.join(columns)} FROM {files.source} WHERE {within}"


def _check_known(schemas: list[pa.Schema], fields: Sequence[str]) -> None:
    """Refuses fields that are in none of the schemas, if there are any. Raises `Invalid`."""
    for name in fields:
        if schemas and not any(paths.find(schema, name) for schema in schemas):
            raise Invalid(gettext("No row of this time has a field %(name)s: logs/fields lists them.") % {"name": name})


def _live_tables(scope: Scope) -> Iterator[pa.Table]:
    """The pages that may hold rows of the scope, decoded, some at a time. Raises `_Moved`."""
    listed = list(_pages(scope).order_by("schema_id", "pk").values_list("pk", "schema_id", "size"))
    batch: list[int] = []
    size = 0
    for at, (pk, schema_id, bytes_) in enumerate(listed):
        batch.append(pk)
        size += bytes_
        is_last = at + 1 == len(listed) or listed[at + 1][1] != schema_id
        if is_last or len(batch) >= FETCHED_PAGES or size > FETCHED_BYTES:
            bodies = list(LogPage.objects.filter(pk__in=batch).values_list("body", flat=True))
            if len(bodies) < len(batch):
                raise _Moved
            yield pa.concat_tables([pages.read(bytes(body)).replace_schema_metadata(None) for body in bodies])
            batch, size = [], 0


def _pages(scope: Scope) -> QuerySet[LogPage]:
    found = LogPage.objects.filter(scope.filters.partitions(), pipeline=scope.pipeline)
    if scope.filters.pipeline_versions:
        found = found.filter(pipeline_version__uuid__in=scope.filters.pipeline_versions)
    return found.filter(time_max__gte=scope.start, time_min__lt=scope.end)


def _columns(fields: Sequence[str]) -> str:
    values = [f"f{at} DOUBLE, s{at} VARCHAR" for at in range(len(fields))]
    return ", ".join(["t BIGINT", "edge VARCHAR", "version VARCHAR", "model VARCHAR", *values])


def _insert(connection: duckdb.DuckDBPyConnection, wanted: Wanted, table: pa.Table) -> None:
    """Adds the wanted rows of a table."""
    connection.register("page", scan_segments.narrowed(table, wanted))
    connection.execute(f"INSERT INTO live {_from_narrowed('page', table.schema, wanted)}")
    connection.unregister("page")


def _from_narrowed(source: str, schema: pa.Schema, wanted: Wanted) -> str:
    """The rows of the time, out of what `scan_segments.narrowed` made of rows of a schema."""
    found = ["time AS t", "partition AS edge", "pipeline_version AS version", f"{MODEL} AS model"]
    for at, name in enumerate(wanted.fields):
        found += _values(paths.find(schema, name), f"c{at}", at)
    return f"SELECT {', '.join(found)} FROM {source} WHERE time >= {wanted.start} AND time < {wanted.end}"


def _values(place: paths.Place | None, column: str, at: int) -> list[str]:
    if place is None:
        return [f"NULL::DOUBLE AS f{at}", f"NULL::VARCHAR AS s{at}"]
    value = f"unnest({place.value(column)})" if place.is_many else place.value(column)
    number = f"CAST({value} AS DOUBLE)" if place.is_number else "NULL::DOUBLE"
    return [f"{number} AS f{at}", f"CAST({value} AS VARCHAR) AS s{at}"]
