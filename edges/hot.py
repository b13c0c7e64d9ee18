"""The check-in of an edge to which nothing happened, which is nearly every one: a single statement.

Whatever is not plain (people shut the edge out, its publish was replaced, it serves something else now, it joined
again) goes the whole way in `contacts`, under a lock and with its events. Both end the same.

SQL by hand, because building these queries from objects costs five times as much as the database's work.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from common.errors import Invalid
from edges import contacts, queries, sessions, states
from edges.models import Edge
from edges.sessions import Identity
from edges.states import Desired
from publishing.models import Publish

# Publishes that edges of this center run; what each says never changes once it is published.
DESIRED_KEPT = 1024
# One statement is also one moment: an edge that is shut out or moved meanwhile is seen as it is then.
STATEMENT = """
UPDATE {edges} SET last_contact = %s, session_lapses_at = %s, report = %s
WHERE id = %s AND key_thumbprint = %s AND serving_digest = %s AND removed_at IS NULL AND banned_at IS NULL
  AND last_contact <= %s AND session_lapses_at > %s
  AND NOT EXISTS (
    SELECT 1 FROM {replaces} AS r JOIN {publishes} AS p ON p.id = r.from_publish_id
    WHERE r.to_publish_id = {edges}.publish_id AND p.status = %s)
RETURNING publish_id, (SELECT acked FROM {marks} AS m WHERE m.edge_id = {edges}.id AND m.epoch = %s)
"""


@dataclasses.dataclass(frozen=True)
class CheckedIn:
    """What an edge is told: what to serve, up to which row its logs are durable, when its session would lapse."""

    desired: Desired
    acked: int
    lapses_at: datetime


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
    row = _kept(identity, report, epoch, now)
    if row:
        return CheckedIn(_desired(row[0]), row[1] or 0, now + sessions.SESSION_LIFE)
    edge = contacts.checkin(edge=sessions.edge_of(identity, now), report=report, now=now)
    return CheckedIn(queries.desired(edge), queries.acked(edge, epoch), edge.session_lapses_at or now)


def _kept(identity: Identity, report: Mapping[str, Any], epoch: UUID, now: datetime) -> tuple[int, int | None] | None:
    """The id of the edge's publish and its acknowledged row; None when its case is not plain."""
    moment = _value("last_contact", now)
    with connection.cursor() as cursor:
        cursor.execute(
            _statement(),
            [
                moment,
                _value("session_lapses_at", now + sessions.SESSION_LIFE),
                _value("report", contacts.kept(report, now)),
                _value("id", UUID(identity.edge_id)),
                identity.thumbprint,
                (report.get("serving") or {}).get("digest", ""),
                moment,
                moment,
                Publish.Status.PUBLISHED.value,
                _value("id", epoch),
            ],
        )
        found: list[tuple[int, int | None]] = cursor.fetchall()  # all, since SQLite ends the statement only then
    return found[0] if found else None


def _value(field: str, value: Any) -> Any:
    """A value as the database takes it for a column of edges."""
    return Edge._meta.get_field(field).get_db_prep_save(value, connection)  # type: ignore[union-attr]


@functools.lru_cache(maxsize=1)
def _statement() -> str:
    # The marks belong to the app above, see `queries.acked`.
    marks: Any = Edge._meta.get_field("log_marks").related_model
    tables: dict[str, Any] = {
        "edges": Edge,
        "publishes": Publish,
        "replaces": Publish.replaces.through,
        "marks": marks,
    }
    quote = connection.ops.quote_name
    return STATEMENT.format(**{name: quote(model._meta.db_table) for name, model in tables.items()})


@functools.lru_cache(maxsize=DESIRED_KEPT)
def _desired(publish_id: int) -> Desired:
    return states.desired_of(Publish.objects.select_related("pipeline_version__pipeline").get(pk=publish_id))


def forget() -> None:
    """Makes this process read again what publishes say."""
    _desired.cache_clear()
