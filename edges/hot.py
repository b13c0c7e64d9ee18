"""The check-in of an edge to which nothing happened, which is nearly every one: one read and one write.

Whatever is not plain (people shut the edge out, its publish was replaced, it serves something else now, it joined
again) goes the whole way in `contacts`, under a lock and with its events. Both end the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, FilteredRelation, OuterRef, Q

from common.errors import Invalid
from edges import contacts, queries, sessions, states
from edges.models import Edge
from edges.sessions import Identity
from edges.states import Desired
from publishing.models import Publish

# Publishes that edges of this center run; what each says never changes once it is published.
DESIRED_KEPT = 1024


@dataclasses.dataclass(frozen=True)
class CheckedIn:
    """What an edge is told: what to serve, up to which row its logs are durable, when its session would lapse."""

    desired: Desired
    acked: int
    lapses_at: datetime


@dataclasses.dataclass(frozen=True)
class _Row:
    key_thumbprint: str
    last_contact: datetime | None
    session_lapses_at: datetime | None
    publish_id: int
    serving_digest: str
    is_replaced: bool
    acked: int | None


def checkin(identity: Identity, read: Callable[[], Mapping[str, Any]], now: datetime) -> CheckedIn:
    """Keeps a report, which `read` gives, and says what the edge should serve.

    Raises what `contacts.checkin` and `sessions.edge_of` raise, and `Invalid` for a report that breaks the contract;
    the call counts as contact also then.
    """
    try:
        report = read()
    except Invalid:
        contacts.note(sessions.edge_of(identity, now), now=now)
        raise
    epoch = UUID(report["logs"]["epoch"])
    row = _read(identity, epoch)
    if row and _is_plain(row, identity, report, now) and _write(identity, row, report, now):
        return CheckedIn(_desired(row.publish_id), row.acked or 0, now + sessions.SESSION_LIFE)
    edge = contacts.checkin(edge=sessions.edge_of(identity, now), report=report, now=now)
    return CheckedIn(queries.desired(edge), queries.acked(edge, epoch), edge.session_lapses_at or now)


def _read(identity: Identity, epoch: UUID) -> _Row | None:
    replaced = Publish.objects.filter(replaces=OuterRef("publish_id"), status=Publish.Status.PUBLISHED)
    found = (
        Edge.objects.filter(pk=identity.edge_id, removed_at=None, banned_at=None)
        # The marks belong to the app above, see `queries.acked`.
        .annotate(mark=FilteredRelation("log_marks", condition=Q(log_marks__epoch=epoch)), is_replaced=Exists(replaced))
        .order_by()
        .values_list(
            "key_thumbprint",
            "last_contact",
            "session_lapses_at",
            "publish_id",
            "serving_digest",
            "is_replaced",
            "mark__acked",
        )
        .first()
    )
    return _Row(*found) if found else None


def _is_plain(row: _Row, identity: Identity, report: Mapping[str, Any], now: datetime) -> bool:
    serving = (report.get("serving") or {}).get("digest", "")
    return (
        not row.is_replaced
        and row.key_thumbprint == identity.thumbprint
        and row.serving_digest == serving
        and row.last_contact is not None
        and row.last_contact <= now
        and row.session_lapses_at is not None
        and row.session_lapses_at > now
    )


def _write(identity: Identity, row: _Row, report: Mapping[str, Any], now: datetime) -> bool:
    """Whether the edge was still as it was read: nothing locks its row in between."""
    unchanged = Edge.objects.filter(
        pk=identity.edge_id,
        removed_at=None,
        banned_at=None,
        key_thumbprint=row.key_thumbprint,
        publish_id=row.publish_id,
        serving_digest=row.serving_digest,
    )
    return bool(
        unchanged.update(
            last_contact=now,
            session_lapses_at=now + sessions.SESSION_LIFE,
            report=contacts.kept(report, now),
        )
    )


@functools.lru_cache(maxsize=DESIRED_KEPT)
def _desired(publish_id: int) -> Desired:
    return states.desired_of(Publish.objects.select_related("pipeline_version__pipeline").get(pk=publish_id))


def forget() -> None:
    """Makes this process read again what publishes say."""
    _desired.cache_clear()
