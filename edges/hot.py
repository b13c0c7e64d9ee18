"""The check-in of an edge to which nothing happened, which is nearly every one: a single read, written with others.

One that begins to serve something else is written at once, with its event, in two statements. Whatever is not plain
(people shut the edge out, its publish was replaced, it joined again, its log store is another) goes the whole way in
`contacts`, under a lock. All end the same.

SQL by hand, because building these queries from objects costs five times as much as the database's work.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from common.errors import Invalid
from edges import contacts, pending, queries, sessions
from edges.models import Edge
from edges.pending import CheckIn
from edges.sessions import Identity
from edges.states import Desired
from publishing.models import Publish

# One statement is also one moment: an edge that is shut out or moved meanwhile is seen as it is then.
STATEMENT = """
SELECT publish_id, serving_digest, last_contact > %s,
  (SELECT acked FROM {marks} AS m WHERE m.edge_id = {edges}.id AND m.epoch = %s)
FROM {edges}
WHERE id = %s AND key_thumbprint = %s AND removed_at IS NULL AND banned_at IS NULL AND session_lapses_at > %s
  AND COALESCE({epoch}, %s) = %s AND COALESCE({last_sequence}, 0) <= %s
  AND NOT EXISTS (
    SELECT 1 FROM {replaces} AS r JOIN {publishes} AS p ON p.id = r.from_publish_id
    WHERE r.to_publish_id = {edges}.publish_id AND p.status = %s)
"""


@dataclasses.dataclass(frozen=True)
class CheckedIn:
    """What an edge is told: what to serve, up to which row its logs are durable, when its session would lapse."""

    desired: Desired
    acked: int
    lapses_at: datetime


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """A plain edge. `is_recent`: its stored contact is."""

    publish_id: int
    serving_digest: str
    is_recent: bool
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
    seen = _seen(identity, epoch, report["logs"], now)
    if seen and _kept(identity, seen, report, now):
        return CheckedIn(queries.desired(seen.publish_id), seen.acked or 0, now + sessions.SESSION_LIFE)
    edge = contacts.checkin(edge=sessions.edge_of(identity, now), report=report, now=now)
    return CheckedIn(queries.desired(edge.publish_id), queries.acked(edge, epoch), edge.session_lapses_at or now)


def _seen(identity: Identity, epoch: UUID, logs: Mapping[str, Any], now: datetime) -> _Seen | None:
    """The edge, None when its case is not plain."""
    with connection.cursor() as cursor:
        cursor.execute(
            _statement(),
            [
                _value("last_contact", now - pending.RECENT),
                _value("id", epoch),
                _value("id", UUID(identity.edge_id)),
                identity.thumbprint,
                _value("session_lapses_at", now),
                logs["epoch"],
                logs["epoch"],
                logs["last_sequence"],
                Publish.Status.PUBLISHED.value,
            ],
        )
        row = cursor.fetchone()
    return _Seen(*row) if row else None


def _kept(identity: Identity, seen: _Seen, report: Mapping[str, Any], now: datetime) -> bool:
    """Holds the check-in or writes it. False when the edge has changed since it was seen."""
    serving = (report.get("serving") or {}).get("digest", "")
    answered = CheckIn(
        edge_id=UUID(identity.edge_id),
        at=now,
        report=contacts.kept(report, now),
        thumbprint=identity.thumbprint,
        publish_id=seen.publish_id,
        was_serving=seen.serving_digest,
        serving=serving,
    )
    if serving == seen.serving_digest:
        if seen.is_recent and pending.hold_seconds():
            pending.hold(answered)
            return True
        return pending.write([answered]) == 1
    with transaction.atomic():
        is_written = pending.write([answered]) == 1
        if is_written:
            contacts.record_serving(answered.edge_id, seen.serving_digest, serving, now)
    return is_written


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
    named = {name: quote(model._meta.db_table) for name, model in tables.items()}
    if connection.vendor == "postgresql":
        told = {
            "epoch": "report #>> '{logs,epoch}'",
            "last_sequence": "CAST(report #>> '{logs,last_sequence}' AS bigint)",
        }
    else:
        told = {name: f"json_extract(report, '$.logs.{name}')" for name in ("epoch", "last_sequence")}
    return STATEMENT.format(**named, **told)
