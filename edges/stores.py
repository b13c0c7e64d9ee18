"""Log stores that an edge had reported and came back without: its volume was wiped, or its disk exchanged.

An edge has one log store at a time and names it, with its last row, at each check-in. When it names another, rows of
the one before that never arrived are lost unless that store comes back. How many these are is not stored: it follows
from what arrived by now, so that rows which do come later are not lost any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from edges.models import Edge, EdgeEvent, LostStore

# Two engines with one identity, each with a store of its own, must not be able to fill the history.
EVENTS_APART = timedelta(hours=1)


@dataclass(frozen=True)
class Store:
    """A log store as a report tells of it."""

    epoch: UUID
    last: int

    @property
    def told(self) -> dict[str, Any]:
        return {"epoch": str(self.epoch), "last_sequence": self.last}


@dataclass(frozen=True)
class Lost:
    """Rows `first` to `last` of a log store that is gone. `noticed_at`: when the edge first came without it."""

    epoch: UUID
    first: int
    last: int
    noticed_at: datetime

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def reported(report: Mapping[str, Any]) -> Store | None:
    """The log store of a stored report: the one that the edge had at its last check-in."""
    return _read(report.get("logs"))


def remembered(report: Mapping[str, Any]) -> Store | None:
    """The same, also where the edge joined again since and has not reported yet."""
    return reported(report) or _read(report.get("store_before"))


def joined(report: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a report when the edge joins again: whether its log store is gone, its next report tells."""
    before = remembered(report)
    return {"engine": dict(engine)} | ({"store_before": before.told} if before else {})


def follow(edge: Edge, report: Mapping[str, Any], now: datetime) -> None:
    """Notes that a locked edge reports another log store than before, with an event when rows are lost by that."""
    before, current = remembered(edge.report), reported(report)
    if before is None or current is None or before.epoch == current.epoch:
        return
    returned = LostStore.objects.filter(edge=edge, epoch=current.epoch, returned_at=None)
    if returned.update(returned_at=now):
        reason = "A log store that was gone is back: its rows can still arrive."
        _record(edge, EdgeEvent.Kind.STORE_RETURNED, current, now, reason=reason)
    arrived = acked(edge, before.epoch)
    if before.last > arrived:
        _note(edge, before, arrived, now)


def lost(edge: Edge) -> list[Lost]:
    """What of the log stores that an edge has no more did not arrive until now, the latest first."""
    gone = [(store, acked(edge, store.epoch)) for store in edge.lost_stores.filter(returned_at=None)]
    return [
        Lost(store.epoch, arrived + 1, store.last_sequence, store.noticed_at)
        for store, arrived in gone
        if store.last_sequence > arrived
    ]


def sentences(losses: Sequence[Lost]) -> list[str]:
    """What people should know of it."""
    return [
        f"{loss.count:,} of its rows are lost: it came with another log store before it had sent them "
        f"(noticed {loss.noticed_at:%Y-%m-%d %H:%M} UTC)."
        for loss in losses
    ]


def acked(edge: Edge, epoch: UUID) -> int:
    """Up to which row of a log store of the edge is durable here.

    The marks belong to the app above, which hung them on `Edge`: they are read over that relation, not imported.
    """
    return edge.log_marks.filter(epoch=epoch).values_list("acked", flat=True).first() or 0


def _note(edge: Edge, store: Store, arrived: int, now: datetime) -> None:
    known = LostStore.objects.filter(edge=edge, epoch=store.epoch).first()
    LostStore.objects.update_or_create(
        edge=edge,
        epoch=store.epoch,
        defaults={"last_sequence": store.last, "returned_at": None},
        create_defaults={"last_sequence": store.last, "noticed_at": now},
    )
    if known and known.last_sequence >= store.last:
        return
    count = store.last - arrived
    reason = (
        f"The edge came with another log store: {count:,} rows ({arrived + 1} to {store.last}) that it had reported "
        "and not sent are lost."
    )
    _record(edge, EdgeEvent.Kind.ROWS_LOST, store, now, acked=arrived, count=count, reason=reason)


def _record(edge: Edge, kind: EdgeEvent.Kind, store: Store, now: datetime, **detail: object) -> None:
    recent = EdgeEvent.objects.filter(edge=edge, kind=kind, at__gt=now - EVENTS_APART, detail__epoch=str(store.epoch))
    if not recent.exists():
        EdgeEvent.objects.create(edge=edge, kind=kind, at=now, detail={**store.told, **detail})


def _read(part: object) -> Store | None:
    """What older releases stored may lack a part."""
    if not isinstance(part, Mapping):
        return None
    epoch, last = part.get("epoch"), part.get("last_sequence")
    return Store(UUID(epoch), last) if isinstance(epoch, str) and isinstance(last, int) else None
