"""Work that nobody waits for: moving edges to the publish that replaced theirs, and forgetting old assertions."""

import logging
from collections.abc import Iterable
from datetime import datetime

from django.db import transaction

from edges import queries, signing
from edges.models import Assignment, Edge, EdgeEvent, UsedAssertion
from publishing.models import Publish

logger = logging.getLogger(__name__)

# Edges moved in one transaction: few enough that a check-in never waits long for its row.
BATCH = 200


def follow_publish(publish_id: int, now: datetime) -> int:
    """Moves the edges of the publishes that this one replaced. Returns how many were moved."""
    replaced = Publish.objects.filter(replaced_by=publish_id).values_list("pk", flat=True)
    return _follow(queries.replaced_with_edges(replaced), now)


def follow_replacements(now: datetime) -> int:
    """Moves every edge whose publish was replaced by a published one. Returns how many were moved."""
    return _follow(queries.replaced_with_edges(), now)


def move_edges(*, source: Publish, target: Publish, now: datetime, only: Iterable[Edge] | None = None) -> int:
    """Points the edges of one publish at another; `only` limits it to some. Returns how many were moved.

    Safe to run at once with itself: the rows are locked, and who comes second finds them moved.
    """
    moved = 0
    while batch := _move_batch(source, target, now, only):
        moved += batch
    if moved:
        logger.info("moved %d edges from publish %d to publish %d", moved, source.pk, target.pk)
    return moved


def prune_assertions(now: datetime) -> int:
    """Forgets the assertions that could not be presented again anyhow. Returns how many."""
    return UsedAssertion.objects.filter(expires_at__lte=now).delete()[0]


def prune_signing_keys(now: datetime) -> int:
    """Deletes rotated keys that no living token needs. Returns how many."""
    return signing.prune(now)


def _follow(sources: Iterable[Publish], now: datetime) -> int:
    moved = 0
    for source in sources:
        target = queries.successor_of(source)
        if target:
            moved += move_edges(source=source, target=target, now=now)
    return moved


def _move_batch(source: Publish, target: Publish, now: datetime, only: Iterable[Edge] | None) -> int:
    detail = {"from": source.pk, "to": target.pk}
    with transaction.atomic():
        rows = Edge.objects.select_for_update().filter(publish=source, removed_at=None)
        if only is not None:
            rows = rows.filter(pk__in=[edge.pk for edge in only])
        # In the order of their keys, so that two movers never wait for each other in a circle.
        found = list(rows.order_by("pk")[:BATCH])
        Edge.objects.filter(pk__in=[edge.pk for edge in found]).update(publish=target)
        Assignment.objects.bulk_create(Assignment(edge=edge, publish=target, since=now) for edge in found)
        EdgeEvent.objects.bulk_create(
            EdgeEvent(edge=edge, kind=EdgeEvent.Kind.MOVED, at=now, detail=detail) for edge in found
        )
    return len(found)
