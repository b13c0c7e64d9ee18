"""Pages of what came of rows: each is in the center, waits at its site, or is told as lost, with the reason."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.pages import SignedInRequest, signed_in
from logs import accounting
from logs.accounting import Account
from logs.models import LogGap
from logs.pages import LATEST_TIME

# What a person can look at; the REST has them all.
SHOWN_STORES = 20
SHOWN_GAPS = 100


@dataclass(frozen=True)
class Gap:
    """A gap, and the times of its first and last row where its sender told them."""

    told: LogGap
    begin: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class Store:
    """The account of a log store with its newest gaps, the last first, and how many older ones there are."""

    account: Account
    last_time: datetime | None
    gaps: list[Gap]
    older_gaps: int


@require_safe
@signed_in
def edge(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """What came of the rows of an edge."""
    found = accounting.accounting_for(request.user, pk)
    pipeline = found.edge.publish.pipeline_version.pipeline
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        edge=found.edge,
        health=found.health,
        stores=_stores(found.accounts),
        older_stores=max(0, len(found.accounts) - SHOWN_STORES),
    )
    return render(request, "logs/edge_accounting.html", context)


@require_safe
@signed_in
def sources(request: SignedInRequest, pk: int) -> HttpResponse:
    """What came of the rows of a pipeline's sources in the center."""
    pipeline = catalog.pipeline_for(request.user, pk)
    found = [
        (one.source, _stores(one.accounts), max(0, len(one.accounts) - SHOWN_STORES))
        for one in accounting.sources_for(request.user, pk)
    ]
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, sources=found)
    return render(request, "logs/sources.html", context)


def _stores(accounts: list[Account]) -> list[Store]:
    return [
        Store(
            account=account,
            last_time=_moment(account.last_time),
            gaps=[
                Gap(gap, _moment(gap.time_min), _moment(gap.time_max)) for gap in reversed(account.gaps[-SHOWN_GAPS:])
            ],
            older_gaps=max(0, len(account.gaps) - SHOWN_GAPS),
        )
        for account in accounts[:SHOWN_STORES]
    ]


def _moment(milliseconds: int | None) -> datetime | None:
    """A time as a sender told it; None for one that is none, for its clock may say anything."""
    if milliseconds is None or not 0 <= milliseconds <= LATEST_TIME:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
