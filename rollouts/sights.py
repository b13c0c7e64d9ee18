"""Seeing the edges of many members at once: one query, and no report is read further than needed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Q, QuerySet

from edges.states import LATE_INTERVALS
from rollouts.models import RolloutMember
from rollouts.proof import Sight


def offline_before(now: datetime) -> datetime:
    """Edges that were last heard of before this are offline, as `edges.states` tells people."""
    return now - LATE_INTERVALS * timedelta(seconds=settings.EDGE_CHECKIN_SECONDS)


def in_contact(now: datetime, edge: str = "edge__") -> Q:
    """The members whose edge can answer now."""
    return Q(
        **{
            f"{edge}removed_at": None,
            f"{edge}banned_at": None,
            f"{edge}joined_at__isnull": False,
            f"{edge}last_contact__gte": offline_before(now),
            f"{edge}session_lapses_at__gt": now,
        }
    )


def seen(members: QuerySet[RolloutMember], now: datetime) -> Iterator[tuple[RolloutMember, Sight]]:
    """Each member with its edge as it was last seen."""
    annotated = members.annotate(
        seen_publish=F("edge__publish_id"),
        seen_digest=F("edge__serving_digest"),
        seen_at=F("edge__report__at"),
        seen_update=F("edge__report__update__state"),
        seen_error=F("edge__report__update__error"),
        seen_contact=F("edge__last_contact"),
        seen_joined=F("edge__joined_at"),
        seen_lapse=F("edge__session_lapses_at"),
        seen_banned=F("edge__banned_at"),
        seen_removed=F("edge__removed_at"),
    )
    for member in annotated:
        yield member, _sight(member, now)


def _sight(row: Any, now: datetime) -> Sight:
    absent, is_shut_out = _absence(row, now)
    at = row.seen_at
    return Sight(
        publish_id=row.seen_publish,
        digest=row.seen_digest,
        reported_at=datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else None,
        update=row.seen_update or "",
        error=row.seen_error or "",
        contact=row.seen_contact,
        absent=absent,
        is_shut_out=is_shut_out,
        is_removed=row.seen_removed is not None,
    )


def _absence(row: Any, now: datetime) -> tuple[str, bool]:
    """Why an edge cannot answer, and whether that needs a person's help to change."""
    if row.seen_removed:
        return "It was removed.", True
    if row.seen_banned:
        return "It is banned.", True
    if row.seen_joined is None or row.seen_contact is None:
        return "It never joined.", False
    if row.seen_lapse is None or row.seen_lapse <= now:
        return "Its session expired: it needs a new bundle.", True
    if row.seen_contact < offline_before(now):
        return f"No contact since {row.seen_contact:%Y-%m-%d %H:%M} UTC.", False
    return "", False
