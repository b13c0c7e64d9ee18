"""What came of the rows of edges and of sources in the center: each is here, or it is told why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from catalog import queries as catalog
from edges import queries as edge_queries
from edges import stores
from edges.health import Health, of_report
from edges.models import Edge
from logs.models import LogGap, LogMark, LogSource

VOLUME_LOST = "volume_lost"  # beside the reasons that engines give


@dataclass(frozen=True)
class Account:
    """What came of one log store: `received` + `shed` = `acked`, so that no row is lost uncounted.

    `lost` rows were reported by the edge after `acked`, and then it came with another store. `pending` rows were on the
    edge at its last check-in and are not accounted for yet; None for a store that it did not report then. `last_time`
    is epoch ms, edge time.
    """

    epoch: UUID
    received: int
    shed: int
    lost: int
    acked: int
    pending: int | None
    last_time: int | None
    last_arrival: datetime | None
    gaps: list[LogGap]


@dataclass(frozen=True)
class Accounting:
    """The accounts of an edge's log stores, the last heard of first, and what its last check-in said of its clock."""

    edge: Edge
    health: Health
    accounts: list[Account]


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
    reported = stores.reported(edge.report)
    if reported and reported.epoch not in {mark.epoch for mark in marks}:
        # Not saved: nothing of that store arrived, but people should see that its rows wait.
        marks.insert(0, LogMark(edge=edge, epoch=reported.epoch))
    lost = {found.epoch: found for found in stores.lost(edge)}
    marks.extend(LogMark(edge=edge, epoch=epoch) for epoch in lost.keys() - {mark.epoch for mark in marks})
    accounts = [
        _account(
            mark,
            gaps.get(mark.epoch, []),
            lost.get(mark.epoch),
            pending=max(0, reported.last - mark.acked) if reported and mark.epoch == reported.epoch else None,
        )
        for mark in marks
    ]
    return Accounting(edge, of_report(edge.report), accounts)


def sources_for(actor: catalog.Actor, pipeline_pk: int) -> list[SourceAccounts]:
    """What came of the rows of a pipeline's sources in the center, by name. Raises `NotFound`."""
    pipeline = catalog.pipeline_for(actor, pipeline_pk)
    marks: dict[int | None, list[LogMark]] = {}
    for mark in LogMark.objects.filter(source__pipeline=pipeline).order_by("-updated_at", "-id"):
        marks.setdefault(mark.source_id, []).append(mark)
    sources = pipeline.log_sources.select_related("created_by")
    return [SourceAccounts(source, [_account(mark) for mark in marks.get(source.pk, [])]) for source in sources]


def _account(
    mark: LogMark, gaps: Sequence[LogGap] = (), lost: stores.Lost | None = None, pending: int | None = None
) -> Account:
    """The account of a log store. What is lost is one more gap, which is not stored: it shrinks when rows come."""
    told = list(gaps)
    if lost:
        told.append(
            LogGap(
                epoch=lost.epoch,
                first=lost.first,
                last=lost.last,
                count=lost.count,
                reason=VOLUME_LOST,
                arrived_at=lost.noticed_at,
            )
        )
    return Account(
        epoch=mark.epoch,
        received=mark.rows,
        shed=mark.shed,
        lost=lost.count if lost else 0,
        acked=mark.acked,
        pending=pending,
        last_time=mark.time_max,
        last_arrival=mark.updated_at,
        gaps=told,
    )
