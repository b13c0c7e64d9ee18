"""Reads of logs for an actor: who may see a pipeline may see its logs, wherever its edges run now."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from django.db.models import Exists, OuterRef, Q, Sum
from django.utils import timezone

from catalog import queries as catalog
from catalog.models import Pipeline
from edges.models import Assignment, Edge
from logs import merge, rollups
from logs.columns import Selection
from logs.filters import Filters
from logs.live import LivePages
from logs.models import LogPage, LogRollup, LogSegment
from logs.query import MAX_ANSWER_BYTES, Answer, Cursor, Order, Query, Source
from logs.segments import Segments
from publishing import queries as publishing

FEW_ASSIGNMENTS = 200
TABLE_BYTES = 2 * 1024**2  # what a person can look at


def read(actor: catalog.Actor, pipeline_pk: int, query: Query) -> Answer:
    """Rows of a pipeline in global time order. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    return merge.answer(_sources(pipeline, query.filters), query)


def walk(pipeline: Pipeline, query: Query, total: int | None = None) -> Iterator[merge.Batch]:
    """All rows of a query, or its first, in memory that does not grow. For who was let in. Raises `NotFound`."""
    return merge.walk(_sources(pipeline, query.filters), query, total)


def span(
    pipeline: Pipeline, start: int | None, end: int | None, filters: Filters | None = None
) -> tuple[int, int] | None:
    """The times (epoch ms) of a pipeline's oldest and newest row within others; None when there is none."""
    selection = Selection(dataset=("time",))
    query = Query(limit=1, start=start, end=end, selection=selection, filters=filters or Filters())
    answers = [merge.answer(_sources(pipeline, query.filters), replace(query, order=order)) for order in Order]
    newest, oldest = (answer.table.column("time").cast(pa.int64()) for answer in answers)
    return (oldest[0].as_py(), newest[0].as_py()) if len(newest) and len(oldest) else None


@dataclass(frozen=True)
class NewestRows:
    """Rows as Python values, newest first, and the cursor of what comes after them; None when nothing does.

    There may be a `next` without rows: of those that were looked at, the filters let none through.
    """

    rows: list[dict[str, Any]]
    next: str | None


def newest_page(
    actor: catalog.Actor,
    pipeline: Pipeline,
    *,
    filters: Filters | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> NewestRows:
    """The newest rows of a pipeline, or those after a cursor, as Python values, whatever their schemas.

    Each has `time` (aware, UTC), `in`, `out`, `anomaly`, `metadata`. Rows that are large together (`TABLE_BYTES` of
    decoded values) are fewer than the limit. Raises `NotFound`, `Invalid` for a cursor that is none.
    """
    pipeline = catalog.pipeline_for(actor, pipeline.pk)
    query = asked(filters or Filters(), limit=limit, cursor=cursor, max_bytes=TABLE_BYTES)
    found = merge.records(_sources(pipeline, query.filters), query)
    rows = [{**row, "time": row["time"].replace(tzinfo=UTC)} for row in found.rows]
    return NewestRows(rows, str(found.next) if found.next else None)


def newest_rows(
    actor: catalog.Actor,
    pipeline: Pipeline,
    limit: int = 50,
    edges: Iterable[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[dict[str, Any]]:
    """The rows of `newest_page`, of some edges in some time. Raises `NotFound`."""
    filters = Filters(start=start, end=end, edges=tuple(edges or ()))
    return newest_page(actor, pipeline, filters=filters, limit=limit).rows


def asked(
    filters: Filters,
    *,
    order: Order = Order.NEWEST_FIRST,
    limit: int = 100,
    cursor: str | None = None,
    selection: Selection | None = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> Query:
    """A query of filtered rows. Raises `Invalid` for a cursor that is none or of the other order."""
    return Query(
        order=order,
        limit=limit,
        start=first_at(filters.start),
        end=last_at(filters.end),
        cursor=Cursor.parse(cursor) if cursor else None,
        selection=selection or Selection(),
        max_bytes=max_bytes,
        filters=filters,
    )


def rows_today(pipelines: Iterable[Pipeline]) -> dict[int, int]:
    """Rows of each pipeline (by id) since midnight UTC, edge time, counted without decoding anything.

    A page that is not summed up yet is counted whole when its newest row is of today, so for some seconds rows just
    before midnight may be among them.
    """
    midnight = first_at(timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    ids = [pipeline.pk for pipeline in pipelines]
    total = dict.fromkeys(ids, 0)
    waiting = rollups.pending(LogPage.objects.filter(pipeline__in=ids, time_max__gte=midnight)).order_by()
    summed = LogRollup.objects.filter(
        series__pipeline__in=ids, series__partition="", grain=rollups.DAY, start__gte=midnight
    )
    for rows, of in ((waiting, "pipeline"), (summed, "series__pipeline")):
        for pk, counted in rows.values_list(of).annotate(total=Sum("rows")):
            total[pk] += counted
    return total


def anomalies_today(pipelines: Iterable[Pipeline]) -> dict[int, int]:
    """Rows of each pipeline (by id) that failed a validation since midnight UTC, as far as they are summed up."""
    midnight = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ids = [pipeline.pk for pipeline in pipelines]
    counted = (
        # A series without an edge's name is of all edges.
        LogRollup.objects.filter(series__pipeline__in=ids, series__partition="", grain=rollups.DAY)
        .filter(start__gte=first_at(midnight))
        .values("series__pipeline")
        .annotate(total=Sum("anomalous"))
        .values_list("series__pipeline", "total")
    )
    return dict.fromkeys(ids, 0) | dict(counted)


def partitions_of(pipeline: Pipeline, most: int | None = None) -> list[str]:
    """The names of the edges that run or ran a pipeline, so that may have written logs of it, and of its sources.

    The first of them in order, when only so many are wanted.
    """
    # Every edge that runs or ran it was assigned to it, so one condition finds both. Few are looked up by these
    # assignments, not among all edges of the center; many by their names, up to the first that are wanted.
    mine = Assignment.objects.filter(publish__in=publishing.ids_of(Q(pipeline_version__pipeline=pipeline))).order_by()
    few = list(mine.values_list("edge", flat=True)[: FEW_ASSIGNMENTS + 1])
    is_one = Q(pk__in=few) if len(few) <= FEW_ASSIGNMENTS else Q(Exists(mine.filter(edge=OuterRef("pk"))))
    found = Edge.objects.filter(is_one).order_by("name")
    names = {*found.values_list("name", flat=True).distinct()[:most], *map(str, pipeline.log_sources.all())}
    return sorted(names)[:most]


def first_at(moment: datetime | None) -> int | None:
    """The first whole millisecond (epoch) that is not before a moment."""
    return None if moment is None else -((-_microseconds(moment)) // 1000)


def last_at(moment: datetime | None) -> int | None:
    """The last whole millisecond (epoch) that is not after a moment."""
    return None if moment is None else _microseconds(moment) // 1000


def _microseconds(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _sources(pipeline: Pipeline, filters: Filters) -> list[Source]:
    """Where rows of a pipeline are: live pages, segments. Those that cannot hold rows of these filters may be left out.

    Pages first: of what becomes a segment in between, the segment is listed too, and a key is answered once.
    """
    found = LogPage.objects.filter(filters.partitions(), pipeline=pipeline)
    if filters.pipeline_versions:
        versions = catalog.version_pks(pipeline, filters.pipeline_versions)
        found = found.filter(pipeline_version__in=list(versions.values()))
    return [LivePages(found), Segments(LogSegment.objects.filter(pipeline=pipeline, removed_at=None))]
