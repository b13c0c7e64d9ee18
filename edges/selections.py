"""What people do with edges that they selected in a list: all of them or none, in one transaction.

As in `operations`: each verb authorises its actor and refuses by raising.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from catalog.models import Role, User
from common.errors import Invalid
from edges import operations, queries
from edges.models import Edge, EdgeEvent
from edges.operations import Added

SELECTED = 500  # a page of a list, ten times over: one transaction, one answer


def remove_edges(*, actor: User, edges: Sequence[Edge], reason: str = "") -> None:
    """As `operations.remove_edge`, for each. Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`."""
    _each(edges, lambda edge: operations.remove_edge(actor=actor, edge=edge, reason=reason))


def ban_edges(*, actor: User, edges: Sequence[Edge], reason: str = "") -> None:
    """As `operations.ban_edge`, for each. Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`."""
    _each(edges, lambda edge: operations.ban_edge(actor=actor, edge=edge, reason=reason))


def unban_edges(*, actor: User, edges: Sequence[Edge], reason: str = "") -> None:
    """As `operations.unban_edge`, for each. Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`."""
    _each(edges, lambda edge: operations.unban_edge(actor=actor, edge=edge, reason=reason))


def reissue_tokens(*, actor: User, edges: Sequence[Edge], reason: str = "") -> list[Added]:
    """As `operations.reissue_token`, for each. Collaborators only.

    Raises `NotFound`, `Forbidden`, `Invalid`, and `Conflict` when one is banned.
    """
    given: list[Added] = []
    _each(edges, lambda edge: given.append(operations.reissue_token(actor=actor, edge=edge, reason=reason)))
    return sorted(given, key=lambda added: added.edge.name)


def retag_edges(
    *,
    actor: User,
    edges: Sequence[Edge],
    add: Sequence[str] = (),
    take: Sequence[str] = (),
    reason: str = "",
    now: datetime | None = None,
) -> None:
    """Gives edges some tags and takes others from them. Collaborators only.

    Raises `NotFound`, `Forbidden`, `Invalid` for tags that no edge may have, or when there is nothing to change.
    """
    now = now or timezone.now()
    if not add and not take:
        raise Invalid(_("Name at least one tag to add or to remove."))

    def retag(edge: Edge) -> None:
        found = queries.edge_for(actor, edge.pk, Role.COLLABORATOR)
        kept = [tag for tag in found.tags if tag not in take]
        tags = list(dict.fromkeys([*kept, *add]))
        operations.check_fields(found.name, tags, found.cpus, found.memory)
        if tags != found.tags:
            Edge.objects.filter(pk=edge.pk).update(tags=tags)
            detail = {"old": found.tags, "new": tags, "reason": reason[: operations.REASON]}
            EdgeEvent.objects.create(edge=edge, kind=EdgeEvent.Kind.TAGGED, actor=actor, at=now, detail=detail)

    _each(edges, retag)


def _each(edges: Sequence[Edge], change: Callable[[Edge], object]) -> None:
    if not 1 <= len(edges) <= SELECTED:
        raise Invalid(_("Select from 1 to %(selected)s edges.") % {"selected": SELECTED})
    with transaction.atomic():
        # In the order of their keys, like everybody else who locks more than one.
        for edge in sorted(edges, key=lambda edge: edge.pk):
            change(edge)
