"""Full scans by DuckDB, over all rows of a pipeline and time range: for what no rollup can answer.

A scan is bounded in time and memory and says so when it would need more. Rows of every schema take part; where a schema
has no such field, or one of another type, its value is null.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
from django.db.models import QuerySet

from catalog.models import Pipeline
from common.errors import Conflict, Invalid, RateLimited, TooLarge
from logs import pages, paths
from logs.models import LogPage

SECONDS = 20.0
MEMORY = "512MB"
THREADS = 2
AT_ONCE = 2  # scans in a process
FETCHED_PAGES = 64
FETCHED_BYTES = 16 * 1024**2
TRIES = 3
METADATA = ("partition", "pipeline_version", "last_model")
OPERATORS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

_turns = threading.BoundedSemaphore(AT_ONCE)


class TooSlow(Invalid):
    """The scan was broken off after `SECONDS`."""

    code = "too_slow"


@dataclass(frozen=True)
class Condition:
    """Only rows whose field compares so with a value. Raises `Invalid` for an operator that is not of `OPERATORS`."""

    path: str
    operator: str
    value: float | str

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise Invalid(f"{self.operator} is no comparison: use one of {' '.join(OPERATORS)}.")


@dataclass(frozen=True)
class Scope:
    """Which rows: from `start` until before `end` (epoch ms). No edges: all."""

    pipeline: Pipeline
    start: int
    end: int
    edges: tuple[str, ...] = ()
    pipeline_version: UUID | None = None
    model: str = ""
    where: tuple[Condition, ...] = ()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The values in the statements of this scope."""
        given: dict[str, Any] = {"start": self.start, "end": self.end}
        if self.edges:
            given["edges"] = list(self.edges)
        if self.pipeline_version:
            given["version"] = str(self.pipeline_version)
        if self.model:
            given["model"] = self.model
        return given | {f"value{at}": one.value for at, one in enumerate(self.where)}


class _Moved(Exception):
    """A page became a segment after it was listed."""


@dataclass
class Scan:
    """Rows of a scope, as `found`: `t` (epoch ms), `edge`, `version`, `model`, and of each field a column.

    A field at place n is `fn`, a DOUBLE (null when it is no number), and `sn`, its text. A field that is all elements
    of a list makes a row of each.
    """

    connection: duckdb.DuckDBPyConnection
    scope: Scope
    fields: Sequence[str]
    parts: list[str]

    def execute(self, statement: str) -> duckdb.DuckDBPyConnection:
        """Runs a SELECT from `found`."""
        return self.connection.execute(*self._whole(statement))

    def batches(self, statement: str, rows: int) -> pa.RecordBatchReader:
        """Runs a SELECT from `found`, to be read in batches of so many rows at most."""
        whole, parameters = self._whole(statement)
        return self.connection.sql(whole, params=parameters).to_arrow_reader(rows)

    def _whole(self, statement: str) -> tuple[str, Mapping[str, Any]]:
        parameters = self.scope.parameters if len(self.parts) > 1 else {}
        return f"WITH found AS ({' UNION ALL '.join(self.parts)}) {statement}", parameters


@contextmanager
def scan(scope: Scope, fields: Sequence[str] = (), seconds: float = SECONDS) -> Iterator[Scan]:
    """Raises `Invalid` for a field that no row has, `TooSlow`, `TooLarge`, and `RateLimited` when too many run."""
    if not _turns.acquire(timeout=seconds):
        raise RateLimited("Other scans of logs are running: try again in a minute.", retry_after=60)
    try:
        with open_connection() as connection, _bounded(connection, seconds):
            yield Scan(connection, scope, fields, _loaded(connection, scope, fields))
    finally:
        _turns.release()


@contextmanager
def open_connection() -> Iterator[duckdb.DuckDBPyConnection]:
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
        raise TooSlow(f"This takes longer than {seconds:g} seconds: ask for a shorter time or fewer edges.") from exc
    except duckdb.OutOfMemoryException as exc:
        raise TooLarge("This needs too much memory: ask for a shorter time or fewer edges.", limit=MEMORY) from exc
    finally:
        timer.cancel()


def _loaded(connection: duckdb.DuckDBPyConnection, scope: Scope, fields: Sequence[str]) -> list[str]:
    """The SELECTs that together are all rows. Those of live pages are copied, because pages are taken away."""
    for _ in range(TRIES):
        connection.execute(f"CREATE OR REPLACE TABLE live ({_columns(fields)})")
        seen: dict[bytes, pa.Schema] = {}
        try:
            for table in _live_tables(scope):
                _insert(connection, scope, fields, table)
                seen[table.schema.serialize().to_pybytes()] = table.schema
        except _Moved:
            continue
        _check_known(list(seen.values()), scope, fields)
        return ["SELECT * FROM live"]
    raise Conflict("The rows are just being moved: try again.")


def _check_known(schemas: list[pa.Schema], scope: Scope, fields: Sequence[str]) -> None:
    """Refuses names that are in none of the schemas, if there are any. Raises `Invalid`."""
    for name in [*fields, *(one.path for one in scope.where)] if schemas else []:
        places = [place for schema in schemas if (place := paths.find(schema, name))]
        if not places:
            raise Invalid(f"No row of this time has a field {name}: logs/fields lists them.")
        if name not in fields and all(place.is_many for place in places):
            element = f"{name.removesuffix('[*]')}[0]"
            raise Invalid(f"{name} is a list: say which element, as in {element}.")


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
    found = LogPage.objects.filter(pipeline=scope.pipeline, time_max__gte=scope.start, time_min__lt=scope.end)
    if scope.edges:
        found = found.filter(partition__in=scope.edges)
    if scope.pipeline_version:
        found = found.filter(pipeline_version__uuid=scope.pipeline_version)
    return found


def _columns(fields: Sequence[str]) -> str:
    values = [f"f{at} DOUBLE, s{at} VARCHAR" for at in range(len(fields))]
    return ", ".join(["t BIGINT", "edge VARCHAR", "version VARCHAR", "model VARCHAR", *values])


def _insert(connection: duckdb.DuckDBPyConnection, scope: Scope, fields: Sequence[str], table: pa.Table) -> None:
    """Adds the wanted rows of a table of pages, whose own names DuckDB never sees: to it `a` and `A` are the same."""
    wanted = [paths.find(table.schema, name) for name in [*fields, *(one.path for one in scope.where)]]
    columns = {"time": table.column("time").cast(pa.int64())}
    columns |= {name: paths.Place(("metadata", name), pa.string()).array(table) for name in METADATA}
    columns |= {f"c{at}": place.array(table) for at, place in enumerate(wanted) if place}
    connection.register("page", pa.table(columns))
    names = [f"c{at}" for at in range(len(wanted))]
    source = _Source("page", "time", {name: name for name in METADATA}, names, wanted)
    connection.execute(f"INSERT INTO live {_selected(source, scope, len(fields))}", scope.parameters)
    connection.unregister("page")


@dataclass(frozen=True)
class _Source:
    """Rows of one schema, and SQL for what is in them. `columns` are what the places' names lead to."""

    table: str
    time: str
    metadata: Mapping[str, str]
    columns: Sequence[str]
    places: Sequence[paths.Place | None]


def _selected(source: _Source, scope: Scope, fields: int) -> str:
    """The SELECT that gives wanted rows the columns of all schemas. The first of the places are those of the fields."""
    model = f"TRY_CAST({source.metadata['last_model']} AS JSON) ->> '$.model_name'"
    edge, version = source.metadata["partition"], source.metadata["pipeline_version"]
    columns = [f"{source.time} AS t", f"{edge} AS edge", f"{version} AS version", f"{model} AS model"]
    conditions = [f"{source.time} >= $start", f"{source.time} < $end"]
    conditions += [f"{edge} IN (SELECT unnest($edges))"] if scope.edges else []
    conditions += [f"{version} = $version"] if scope.pipeline_version else []
    conditions += [f"({model}) = $model"] if scope.model else []
    given = list(zip(source.places, source.columns, strict=True))
    for at, (place, column) in enumerate(given[:fields]):
        columns += _values(place, column, at)
    for at, (place, column) in enumerate(given[fields:]):
        conditions.append(_compared(place, column, scope.where[at], f"$value{at}"))
    return f"SELECT {', '.join(columns)} FROM {source.table} WHERE {' AND '.join(conditions)}"


def _values(place: paths.Place | None, column: str, at: int) -> list[str]:
    if place is None:
        return [f"NULL::DOUBLE AS f{at}", f"NULL::VARCHAR AS s{at}"]
    value = f"unnest({place.value(column)})" if place.is_many else place.value(column)
    number = f"CAST({value} AS DOUBLE)" if place.is_number else "NULL::DOUBLE"
    return [f"{number} AS f{at}", f"CAST({value} AS VARCHAR) AS s{at}"]


def _compared(place: paths.Place | None, column: str, condition: Condition, parameter: str) -> str:
    """A condition that is not met where the field is missing, null, NaN, or of another kind than the value."""
    if place is None or place.is_many or place.is_number is isinstance(condition.value, str):
        return f"{parameter} IS NULL"  # never; it keeps the parameter in use
    operator, value = OPERATORS[condition.operator], place.value(column)
    if isinstance(condition.value, str):
        return f"CAST({value} AS VARCHAR) {operator} {parameter}"
    # To DuckDB NaN is larger than any number.
    return f"(CAST({value} AS DOUBLE) {operator} {parameter} AND NOT isnan(CAST({value} AS DOUBLE)))"
