"""Moving chosen edges to a publish. The publish's own replacements are followed by `jobs`."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from edges.models import Assignment, Edge, EdgeEvent
from publishing.models import Publish


def assign(
    *, edges: Collection[UUID], source: Publish, target: Publish, now: datetime, detail: dict[str, Any] | None = None
) -> set[UUID]:
    """Points those of the edges that still belong to `source` at `target`; the ids of the moved ones.

    An edge that was removed, or moved by somebody else meanwhile, stays as it is and is not among them. One short
    transaction: the caller limits how many edges it gives, so that no check-in waits long for its row.
    """
    told = {"from": source.pk, "to": target.pk, **(detail or {})}
    with transaction.atomic():
        rows = Edge.objects.select_for_update().filter(pk__in=edges, publish=source, removed_at=None)
        # In the order of their keys, so that two movers never wait for each other in a circle.
        found = list(rows.order_by("pk").values_list("pk", flat=True))
        Edge.objects.filter(pk__in=found).update(publish=target)
        Assignment.objects.bulk_create(Assignment(edge_id=pk, publish=target, since=now) for pk in found)
        EdgeEvent.objects.bulk_create(
            EdgeEvent(edge_id=pk, kind=EdgeEvent.Kind.MOVED, at=now, detail=told) for pk in found
        )
    return set(found)
