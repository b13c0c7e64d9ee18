"""Seeing the edges of many members at once: few queries, and no report is read further than needed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import BooleanField, Case, OuterRef, Q, QuerySet, Subquery, When

from edges.models import Edge
from edges.states import LATE_INTERVALS
from rollouts.models import RolloutMember
from rollouts.proof import Sight

# Edges read in one query: as many as a database takes parameters for, and more would not be faster.
AT_ONCE = 1000
_COLUMNS = (
    "publish_id",
    "serving_digest",
    "report__at",
    "report__update__state",
    "report__update__error",
    "last_contact",
    "joined_at",
    "session_lapses_at",
    "banned_at",
    "removed_at",
)


class _Row(NamedTuple):
    """The columns of an edge that say where it is."""

    publish: int
    digest: str
    reported_at: Any
    update: str | None
    error: str | None
    contact: datetime | None
    joined: datetime | None
    lapse: datetime | None
    banned: datetime | None
    removed: datetime | None


def offline_before(now: datetime) -> datetime:
    """Edges that were last heard of before this are offline, as `edges.states` tells people."""
    return now - LATE_INTERVALS * timedelta(seconds=settings.EDGE_CHECKIN_SECONDS)


def in_contact(now: datetime) -> Q:
    """The edges that can answer now."""
    return Q(
        removed_at=None,
        banned_at=None,
        joined_at__isnull=False,
        last_contact__gte=offline_before(now),
        session_lapses_at__gt=now,
    )


def can_answer(members: QuerySet[RolloutMember], now: datetime, answers: bool = True) -> QuerySet[RolloutMember]:
    """The members whose edge can answer now, or those whose edge cannot.

    A subquery for a value, which is looked up by the edge's key for each member. A join would leave the order to the
    database, and while its statistics say that a table of ten thousand rows is empty it compares all with all.
    """
    is_in_contact = Case(When(in_contact(now), then=True), default=False, output_field=BooleanField())
    looked_up = Edge.objects.filter(pk=OuterRef("edge_id")).annotate(answers=is_in_contact).order_by()
    return members.annotate(can_answer=Subquery(looked_up.values("answers")[:1])).filter(can_answer=answers)


def seen(members: QuerySet[RolloutMember], now: datetime) -> Iterator[tuple[RolloutMember, Sight]]:
    """Each member with its edge as it was last seen. No join, for the reason above."""
    found = list(members)
    for start in range(0, len(found), AT_ONCE):
        some = found[start : start + AT_ONCE]
        rows = Edge.objects.filter(pk__in=[member.edge_id for member in some]).order_by()
        edges = {row[0]: _Row(*row[1:]) for row in rows.values_list("pk", *_COLUMNS)}
        for member in some:
            yield member, _sight(edges[member.edge_id], now)


def _sight(row: "_Row", now: datetime) -> Sight:
    absent, is_shut_out = _absence(row, now)
    at = row.reported_at
    return Sight(
        publish_id=row.publish,
        digest=row.digest,
        reported_at=datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else None,
        update=row.update or "",
        error=row.error or "",
        contact=row.contact,
        absent=absent,
        is_shut_out=is_shut_out,
        is_removed=row.removed is not None,
    )


def _absence(row: "_Row", now: datetime) -> tuple[str, bool]:
    """Why an edge cannot answer, and whether that needs a person's help to change."""
    if row.removed:
        return "It was removed.", True
    if row.banned:
        return "It is banned.", True
    if row.joined is None or row.contact is None:
        return "It never joined.", False
    if row.lapse is None or row.lapse <= now:
        return "Its session expired: it needs a new bundle.", True
    if row.contact < offline_before(now):
        return f"No contact since {row.contact:%Y-%m-%d %H:%M} UTC.", False
    return "", False
