"""What engines do to the logs: store a page of rows, or say which rows they had to drop.

Both move the mark of one log store (edge, epoch) on from the row before theirs, by a conditional UPDATE that locks the
mark's row until the commit. Whoever comes second finds the mark moved and looks again, so that every row is stored once
on every database and no client has to try again. Nothing is decoded or encoded while the lock is held.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import psycopg
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Greatest

from common.errors import Invalid, StorageFull
from edges import queries as edge_queries
from edges.models import Edge
from logs import observability, pages
from logs.errors import LogHole
from logs.models import LogGap, LogMark, LogPage

PG_DISK_FULL = "53100"
# The second when the write-ahead log's index cannot grow.
SQLITE_DISK_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def store_page(*, edge: Edge, epoch: UUID, first: int, pipeline_version_uuid: UUID, body: bytes, now: datetime) -> int:
    """Stores the rows of `body` that are not durable yet and answers the last durable sequence of the log store.

    `first` is the sequence of the page's first row. Raises `PipelineNotAssigned`, `InvalidPage`, `PageTooLarge`,
    `LogHole` when rows before `first` are missing, `StorageFull`, `ObservabilityOff`; in each case nothing was stored.
    """
    observability.require_on()
    version_pk, pipeline_pk = _assigned(edge.pk, pipeline_version_uuid)
    page = pages.check(body, pipeline_version=str(pipeline_version_uuid), partition=edge.name)
    last = first + page.rows - 1
    begin = first  # trusted until the mark says otherwise, so that a page in line costs two statements
    while True:
        fresh = page.after(begin - first)
        with _full_disk_told(), transaction.atomic():
            if _advance(edge, epoch, begin, last, now, rows=fresh.rows, time_max=fresh.time_max):
                _insert(
                    LogPage(
                        pipeline_version_id=version_pk,
                        pipeline_id=pipeline_pk,
                        edge=edge,
                        partition=edge.name,
                        epoch=epoch,
                        first=begin,
                        rows=fresh.rows,
                        size=len(fresh.body),
                        time_min=fresh.time_min,
                        time_max=fresh.time_max,
                        schema_id=fresh.schema_id,
                        arrived_at=now,
                        body=fresh.body,
                    )
                )
                return last
        acked = _acked(edge, epoch, now, first=first, what="page")
        if last <= acked:
            return acked
        begin = acked + 1


def record_gap(
    *,
    edge: Edge,
    epoch: UUID,
    first: int,
    last: int,
    count: int,
    time_min: int | None,
    time_max: int | None,
    reason: str,
    now: datetime,
) -> int:
    """Records that the edge dropped rows `first`..`last` unshipped and answers the last sequence that is accounted for.

    Rows that are durable here are no gap, whatever the edge says: only those after the mark are recorded. Times are
    epoch ms. Raises `Invalid`, `LogHole`, `StorageFull`, `ObservabilityOff`.
    """
    observability.require_on()
    if last < first:
        raise Invalid("A gap ends before it begins: last must not be less than first.")
    if count != last - first + 1:
        raise Invalid(f"A gap of rows {first} to {last} has {last - first + 1} rows, not {count}.")
    begin = first
    while True:
        dropped = last - begin + 1
        with _full_disk_told(), transaction.atomic():
            if _advance(edge, epoch, begin, last, now, shed=dropped):
                LogGap.objects.create(
                    edge=edge,
                    epoch=epoch,
                    first=begin,
                    last=last,
                    count=dropped,
                    time_min=time_min,
                    time_max=time_max,
                    reason=reason,
                    arrived_at=now,
                )
                return last
        acked = _acked(edge, epoch, now, first=first, what="gap")
        if last <= acked:
            return acked
        begin = acked + 1


def _advance(
    edge: Edge,
    epoch: UUID,
    begin: int,
    last: int,
    now: datetime,
    *,
    rows: int = 0,
    shed: int = 0,
    time_max: int | None = None,
) -> bool:
    """Moves the mark to `last` if it stands right before `begin`. A gap has no `time_max`: no row of it came."""
    newest = {} if time_max is None else {"time_max": Greatest(Coalesce("time_max", time_max), time_max)}
    moved = LogMark.objects.filter(edge=edge, epoch=epoch, acked=begin - 1).update(
        acked=last, rows=F("rows") + rows, shed=F("shed") + shed, updated_at=now, **newest
    )
    return moved == 1


@lru_cache(maxsize=4096)
def _assigned(edge_pk: UUID, version_uuid: UUID) -> tuple[int, int]:
    """The keys of a pipeline version that the edge was told to run, and of its pipeline. Raises `PipelineNotAssigned`.

    Remembered, because an assignment is never taken back and every page of an edge asks.
    """
    version = edge_queries.assigned_pipeline_version(Edge(pk=edge_pk), version_uuid)
    return version.pk, version.pipeline_id


def _insert(page: LogPage) -> None:
    """Saves a new page. On PostgreSQL the body goes as it is: Django would write it into the SQL text, as hex."""
    if connection.vendor != "postgresql":
        page.save(force_insert=True)
        return
    fields = [field for field in LogPage._meta.concrete_fields if not field.primary_key]
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    statement = f"INSERT INTO {LogPage._meta.db_table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"
    given = [field.get_db_prep_save(getattr(page, field.attname), connection) for field in fields]
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(statement.encode(), given)


def _acked(edge: Edge, epoch: UUID, now: datetime, *, first: int, what: str) -> int:
    """Where the mark stands; a store that was never heard of gets one. Raises `LogHole` when `first` lies beyond it."""
    acked = LogMark.objects.filter(edge=edge, epoch=epoch).values_list("acked", flat=True).first()
    if first > (acked or 0) + 1:
        expected = (acked or 0) + 1
        raise LogHole(
            f"The {what} begins at row {first}, but row {expected} is expected: send from there, or send a gap record.",
            expected=expected,
        )
    if acked is None:
        with _full_disk_told():
            # The other of two first pages may be here before us: the unique constraint leaves one mark.
            LogMark.objects.bulk_create([LogMark(edge=edge, epoch=epoch, updated_at=now)], ignore_conflicts=True)
    return acked or 0


@contextmanager
def _full_disk_told() -> Iterator[None]:
    """A full disk as `StorageFull`. The transaction inside was rolled back when this sees its error."""
    try:
        yield
    except OperationalError as exc:
        if not _is_disk_full(exc.__cause__):
            raise
        raise StorageFull(
            "The center has no room for more logs: free some space there, then send the page again."
        ) from exc


def _is_disk_full(cause: BaseException | None) -> bool:
    if isinstance(cause, psycopg.Error):
        return cause.sqlstate == PG_DISK_FULL
    return getattr(cause, "sqlite_errorcode", None) in SQLITE_DISK_FULL
