"""What senders do to the logs: store a page of rows, or say which rows they had to drop.

Both move the mark of one log store (an edge's or a source's, and its epoch) on from the row before theirs, by a
conditional UPDATE that locks the mark's row until the commit. Whoever comes second finds the mark moved and looks
again, so that every row is stored once on every database and no client has to try again. Nothing is decoded or encoded
while the lock is held.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from catalog import queries as catalog
from catalog.models import Pipeline, Role, User
from common.errors import Conflict, Invalid, StorageFull
from edges import limits
from edges import queries as edge_queries
from edges.hot import Caller
from edges.models import Edge
from logs import arrivals, observability, pages, records
from logs.arrivals import Arrival, Owner
from logs.errors import LogHole
from logs.models import SOURCE_LENGTH, SOURCE_PREFIX, LogGap, LogMark, LogSource
from logs.pages import Page

SOURCE_NAME = re.compile(rf"[A-Za-z0-9]([-_.A-Za-z0-9]{{0,{SOURCE_LENGTH - 2}}}[A-Za-z0-9])?")
# Each is a partition, of which rollups and pages of charts keep a line.
MOST_SOURCES = 1_000
PG_DISK_FULL = "53100"
# The second when the write-ahead log's index cannot grow.
SQLITE_DISK_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


@dataclass(frozen=True)
class SentPage:
    """The body of a page as it came."""

    body: bytes
    now: datetime
    is_json: bool = False

    def checked(self, version: UUID, partition: str) -> Page:
        """The rows, of that pipeline version and partition. Raises `InvalidPage`, `PageTooLarge`."""
        body = self.body
        if self.is_json:
            body = records.to_stream(body, pipeline_version=str(version), partition=partition)
        return pages.check(body, pipeline_version=str(version), partition=partition)


@dataclass(frozen=True)
class SentGap:
    """Rows `first` to `last` of a log store that their sender dropped before it sent them. Times are epoch ms."""

    epoch: UUID
    first: int
    last: int
    count: int
    time_min: int | None
    time_max: int | None
    reason: str

    def check(self) -> None:
        """Raises `Invalid` where its numbers contradict each other."""
        if self.last < self.first:
            raise Invalid("A gap ends before it begins: last must not be less than first.")
        rows = self.last - self.first + 1
        if self.count != rows:
            raise Invalid(f"A gap of rows {self.first} to {self.last} has {rows} rows, not {self.count}.")


def store_page(*, edge: Edge | Caller, epoch: UUID, first: int, pipeline_version_uuid: UUID, page: SentPage) -> int:
    """Stores the rows of a page that are not durable yet and answers the last durable sequence of the log store.

    `first` is the sequence of the page's first row. Raises `PipelineNotAssigned`, `InvalidPage`, `PageTooLarge`,
    `LogHole` when rows before `first` are missing, `StorageFull`, `ObservabilityOff`; in each case nothing was stored.
    """
    observability.require_on()
    version_pk, pipeline_pk = _assigned(edge.pk, pipeline_version_uuid)
    return _stored(
        Arrival(
            owner=Owner(edge_id=edge.pk),
            partition=edge.name,
            epoch=epoch,
            begin=first,
            version_pk=version_pk,
            pipeline_pk=pipeline_pk,
            page=page.checked(pipeline_version_uuid, edge.name),
            now=page.now,
        )
    )


def store_source_page(
    *, actor: User, pipeline_pk: int, source: str, epoch: UUID, first: int, pipeline_version_uuid: UUID, page: SentPage
) -> int:
    """Stores rows of a source in the center, such as a batch job, as `store_page` does those of an edge.

    `source` is its name within the pipeline; its first page makes it. Rows have the partition `center:<source>`, which
    no edge's name can be. Whether edges may ship theirs (`observability`) does not matter. Raises `InvalidPage`,
    `PageTooLarge`, `LogHole`, `StorageFull`, `NotFound`, `Forbidden` for a viewer, `Invalid` for a name, `Conflict`
    for one source too many, `RateLimited` for too many calls; in each case nothing was stored.
    """
    pipeline = _writable(actor, pipeline_pk, source)
    version_pk = catalog.version_pks(pipeline, [pipeline_version_uuid])[pipeline_version_uuid]
    partition = f"{SOURCE_PREFIX}{source}"
    checked = page.checked(pipeline_version_uuid, partition)
    return _stored(
        Arrival(
            owner=Owner(source_id=_source(actor, pipeline, source, page.now).pk),
            partition=partition,
            epoch=epoch,
            begin=first,
            version_pk=version_pk,
            pipeline_pk=pipeline.pk,
            page=checked,
            now=page.now,
        )
    )


def record_gap(*, edge: Edge, gap: SentGap, now: datetime) -> int:
    """Records rows that the edge dropped unshipped and answers the last sequence that is accounted for.

    Rows that are durable here are no gap, whatever the edge says: only those after the mark are recorded. Raises
    `Invalid`, `LogHole`, `StorageFull`, `ObservabilityOff`.
    """
    observability.require_on()
    gap.check()
    return _recorded(Owner(edge_id=edge.pk), gap, now)


def record_source_gap(*, actor: User, pipeline_pk: int, source: str, gap: SentGap, now: datetime) -> int:
    """Records rows that a source in the center lost, as `record_gap` does those of an edge.

    The first page or gap of a name makes the source. Raises `Invalid`, `LogHole`, `StorageFull`, `NotFound`,
    `Forbidden` for a viewer, `Conflict` when the pipeline has too many sources, `RateLimited` for too many calls.
    """
    pipeline = _writable(actor, pipeline_pk, source)
    gap.check()
    return _recorded(Owner(source_id=_source(actor, pipeline, source, now).pk), gap, now)


def _recorded(owner: Owner, gap: SentGap, now: datetime) -> int:
    """Records what of a gap lies after the mark; where the mark stands then. Raises `LogHole`, `StorageFull`."""
    begin = gap.first
    while True:
        dropped = gap.last - begin + 1
        with _full_disk_told(), transaction.atomic():
            moved = LogMark.objects.filter(epoch=gap.epoch, acked=begin - 1, **owner.marks()).update(
                acked=gap.last, shed=F("shed") + dropped, updated_at=now
            )
            if moved:
                LogGap.objects.create(
                    epoch=gap.epoch,
                    first=begin,
                    last=gap.last,
                    count=dropped,
                    time_min=gap.time_min,
                    time_max=gap.time_max,
                    reason=gap.reason,
                    arrived_at=now,
                    **owner.marks(),
                )
                return gap.last
        acked = _acked(owner, gap.epoch, now, first=gap.first, what="gap")
        if gap.last <= acked:
            return acked
        begin = acked + 1


def _stored(sent: Arrival) -> int:
    """Stores what of a page is not durable yet; the last durable sequence. Raises `LogHole`, `StorageFull`."""
    begin = sent.begin  # trusted until the mark says otherwise, so that a page in line costs one statement
    while True:
        fresh = replace(sent, begin=begin, page=sent.page.after(begin - sent.begin))
        with _full_disk_told():
            if arrivals.store(fresh):
                return sent.last
        acked = _acked(sent.owner, sent.epoch, sent.now, first=sent.begin, what="page")
        if sent.last <= acked:
            return acked
        begin = acked + 1


def _writable(actor: User, pipeline_pk: int, source: str) -> Pipeline:
    """The pipeline, for one more call that writes for a source of it. Raises `Forbidden`, `Invalid`, `NotFound`,
    `RateLimited`.
    """
    pipeline = catalog.pipeline_for(actor, pipeline_pk, Role.COLLABORATOR)
    if not SOURCE_NAME.fullmatch(source):
        raise Invalid(
            _(
                "A source's name has 1 to %(most)s letters, digits, dots, hyphens and underscores, beginning and "
                "ending with a letter or digit."
            )
            % {"most": SOURCE_LENGTH}
        )
    limits.spend(limits.Count("pages of this source", f"{pipeline_pk}/{source}", settings.EDGE_CALLS_PER_MINUTE))
    return pipeline


def _source(actor: User, pipeline: Pipeline, name: str, now: datetime) -> LogSource:
    """The source of that name. Raises `Conflict` when it would be one too many."""
    source = LogSource.objects.filter(pipeline=pipeline, name=name).first()
    if source:
        return source
    if LogSource.objects.filter(pipeline=pipeline).count() >= MOST_SOURCES:
        raise Conflict(
            _("This pipeline has %(count)s sources already: use the name of one of them.") % {"count": MOST_SOURCES}
        )
    made = {"created_by": actor, "created_at": now}
    with _full_disk_told():
        return LogSource.objects.get_or_create(pipeline=pipeline, name=name, defaults=made)[0]


@lru_cache(maxsize=4096)
def _assigned(edge_pk: UUID, version_uuid: UUID) -> tuple[int, int]:
    """The keys of a pipeline version that the edge was told to run, and of its pipeline. Raises `PipelineNotAssigned`.

    Remembered, because an assignment is never taken back and every page of an edge asks.
    """
    version = edge_queries.assigned_pipeline_version(Edge(pk=edge_pk), version_uuid)
    return version.pk, version.pipeline_id


def _acked(owner: Owner, epoch: UUID, now: datetime, *, first: int, what: str) -> int:
    """Where the mark stands; a store that was never heard of gets one. Raises `LogHole` when `first` lies beyond it."""
    acked = LogMark.objects.filter(epoch=epoch, **owner.marks()).values_list("acked", flat=True).first()
    if first > (acked or 0) + 1:
        expected = (acked or 0) + 1
        raise LogHole(
            f"The {what} begins at row {first}, but row {expected} is expected: send from there, or send a gap record.",
            expected=expected,
        )
    if acked is None:
        with _full_disk_told():
            # The other of two first pages may be here before us: the unique constraint leaves one mark.
            mark = LogMark(epoch=epoch, updated_at=now, **owner.marks())
            LogMark.objects.bulk_create([mark], ignore_conflicts=True)
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
