"""What came of the rows of edges and of sources in the center: each is here, or it is told why not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from catalog import queries as catalog
from edges import queries as edge_queries
from edges.health import Health, of_report
from edges.models import Edge
from edges.queries import LeftBehind
from logs import observability
from logs.models import LogGap, LogMark, LogSource

_NOTHING = LeftBehind()
VOLUME_LOST = "volume_lost"  # beside the reasons that engines give


@dataclass(frozen=True)
class Account:
    """What came of one log store: `received` + `shed` = `acked`, so that no row is lost uncounted.

    `pending` rows were on the edge at its last check-in and are not accounted for yet; None for a store that it did not
    report then. `left_behind` rows it had reported before, and has no more: they count as lost until they come.
    `last_time` is epoch ms, edge time.
    """

    epoch: UUID
    received: int
    shed: int
    acked: int
    pending: int | None
    left_behind: int
    last_time: int | None
    last_arrival: datetime | None
    gaps: list[LogGap]


@dataclass(frozen=True)
class Accounting:
    """The accounts of an edge's log stores, the last heard of first, and what its last check-in said of its clock.

    `is_held` is whether pending rows stay on the edge because observability is off.
    """

    edge: Edge
    health: Health
    accounts: list[Account]
    is_held: bool


@dataclass(frozen=True)
class SourceAccounts:
    """A source in the center, and the accounts of its log stores, the last heard of first."""

    source: LogSource
    accounts: list[Account]


def accounting_for(actor: catalog.Actor, edge_pk: UUID) -> Accounting:
    """What came of every row of an edge. Raises `NotFound`."""
    edge = edge_queries.edge_for(actor, edge_pk, removed=True)
    gaps: dict[UUID, list[LogGap]] = {}
    for gap in LogGap.objects.filter(edge=edge).order_by("epoch", "first"):
        gaps.setdefault(gap.epoch, []).append(gap)
    marks = list(LogMark.objects.filter(edge=edge).order_by("-updated_at", "-id"))
    reported, last = _reported_store(edge)
    left = edge_queries.left_behind(edge)
    heard = {mark.epoch for mark in marks}
    # Not saved: nothing of these stores arrived, but people should see that rows wait, or are lost.
    if reported and reported not in heard:
        marks.insert(0, LogMark(edge=edge, epoch=reported))
    marks += [LogMark(edge=edge, epoch=epoch) for epoch in left if epoch not in heard | {reported}]
    accounts = [
        _account(
            mark,
            gaps.get(mark.epoch, []),
            _gone(left.get(mark.epoch, _NOTHING), last if mark.epoch == reported else 0),
            pending=max(0, last - mark.acked) if mark.epoch == reported else None,
        )
        for mark in marks
    ]
    return Accounting(edge, of_report(edge.report), accounts, not observability.is_on())


def _gone(left: LeftBehind, last: int) -> LeftBehind:
    """What is left behind of a store that the edge has now up to `last`, since it was put back: the rest is pending."""
    return replace(left, last=0) if last >= left.last else left


def _reported_store(edge: Edge) -> tuple[UUID | None, int]:
    """The log store that an edge reported at its last check-in, and its last sequence then. None: it never did."""
    told = edge.report.get("logs") or {}
    epoch, last = told.get("epoch"), told.get("last_sequence")
    return (UUID(epoch), last) if epoch and isinstance(last, int) else (None, 0)


def sources_for(actor: catalog.Actor, pipeline_pk: int) -> list[SourceAccounts]:
    """What came of the rows of a pipeline's sources in the center, by name. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    marks: dict[int | None, list[LogMark]] = {}
    for mark in LogMark.objects.filter(source__pipeline=pipeline).order_by("-updated_at", "-id"):
        marks.setdefault(mark.source_id, []).append(mark)
    gaps: dict[tuple[int | None, UUID], list[LogGap]] = {}
    for gap in LogGap.objects.filter(source__pipeline=pipeline).order_by("first"):
        gaps.setdefault((gap.source_id, gap.epoch), []).append(gap)
    return [
        SourceAccounts(
            source, [_account(mark, gaps.get((source.pk, mark.epoch), [])) for mark in marks.get(source.pk, [])]
        )
        for source in pipeline.log_sources.select_related("created_by")
    ]


def _account(
    mark: LogMark, gaps: Sequence[LogGap] = (), left: LeftBehind = _NOTHING, pending: int | None = None
) -> Account:
    """The account of a log store. Rows that went with it are one more gap, not stored, which shrinks when they come.

    Those of which an older copy gave the numbers to others have no place, so that they are only counted.
    """
    told = list(gaps)
    if left.last > mark.acked:
        missing = range(mark.acked + 1, left.last + 1)
        told.append(
            LogGap(
                epoch=mark.epoch,
                first=missing[0],
                last=missing[-1],
                count=len(missing),
                reason=VOLUME_LOST,
                arrived_at=left.noticed_at or mark.updated_at,
            )
        )
    return Account(
        epoch=mark.epoch,
        received=mark.rows,
        shed=mark.shed,
        acked=mark.acked,
        pending=pending,
        left_behind=left.rows(mark.acked),
        last_time=mark.time_max,
        last_arrival=mark.updated_at,
        gaps=told,
    )
