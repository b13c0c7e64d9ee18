"""What people do with edges. Each verb authorises its actor, is one short transaction, and refuses by raising.

What engines do is in `contacts`.
"""

import dataclasses
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from catalog.models import Role, User
from common.errors import Conflict, Invalid, NotFound
from edges import bundle, queries, tokens
from edges.errors import EdgeNameTaken, NotPublished, PublishReplaced
from edges.models import Assignment, Edge, EdgeEvent, JoinToken
from publishing import queries as publishing
from publishing.models import Publish

JOIN_TOKEN_LIFE = timedelta(hours=24)

# No quoting is ever needed for such a name: in a bundle, a shell, a path, a URL.
NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,126}[A-Za-z0-9])?")
TAG = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
TAGS = 32
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, what makes sense for memory.
MEMORY = re.compile(r"[1-9][0-9]{0,11}(\.[0-9]{1,3})?([kMGT]|[KMGT]i)?")
REASON = 1000  # characters
CPUS = (0.01, 1024.0)


@dataclasses.dataclass(frozen=True)
class Added:
    """A new edge, or one with a new join token. The bundle is a secret, and nobody can be shown it again."""

    edge: Edge
    bundle: str = dataclasses.field(repr=False)


def add_edge(
    *,
    actor: User,
    publish: Publish,
    name: str,
    tags: Sequence[str] = (),
    cpus: float = 1.0,
    memory: str = "1Gi",
    now: datetime | None = None,
) -> Added:
    """A new edge that should run a publish, and the bundle for its engine. Collaborators only.

    Raises `NotFound`, `Forbidden`, `Invalid`, `NotPublished`, `PublishReplaced`, `EdgeNameTaken`.
    """
    now = now or timezone.now()
    publish = publishing.publish_for(actor, publish.pk, Role.COLLABORATOR)
    check_fields(name, tags, cpus, memory)
    require_current(publish)
    try:
        with transaction.atomic():
            edge = Edge.objects.create(
                name=name,
                tags=list(tags),
                cpus=cpus,
                memory=memory,
                publish=publish,
                created_by=actor,
                created_at=now,
            )
            Assignment.objects.create(edge=edge, publish=publish, since=now)
            join_token = _give_token(edge, actor, now)
            _record(edge, EdgeEvent.Kind.ADDED, actor, now, publish=publish.pk)
    except IntegrityError as exc:
        if not Edge.objects.filter(name=name, removed_at=None).exists():
            raise
        raise EdgeNameTaken(
            _("There is an edge %(name)r already: choose another name, or remove that one.") % {"name": name}
        ) from exc
    return Added(edge, bundle_of(edge, join_token))


def reissue_token(*, actor: User, edge: Edge, reason: str = "", now: datetime | None = None) -> Added:
    """A new bundle for the same edge: it keeps its id, name and history. Earlier unused tokens end.

    A session that still runs goes on until the new token is used; then the new key replaces the old one.
    Collaborators only. Raises `NotFound`, `Forbidden`, `Conflict` when the edge is banned.
    """
    now = now or timezone.now()
    edge = queries.edge_for(actor, edge.pk, Role.COLLABORATOR)
    with transaction.atomic():
        if _lock(edge).banned_at:
            raise Conflict(_("This edge is banned: lift the ban before you give it a new bundle."), code="edge_banned")
        revoked = edge.join_tokens.filter(used_at=None, revoked_at=None).update(revoked_at=now)
        join_token = _give_token(edge, actor, now)
        _record(edge, EdgeEvent.Kind.TOKEN_REISSUED, actor, now, revoked=revoked, reason=reason[:REASON])
    return Added(edge, bundle_of(edge, join_token))


def remove_edge(*, actor: User, edge: Edge, reason: str = "", now: datetime | None = None) -> None:
    """Shuts an edge out for good and frees its name; its logs and history stay. Collaborators only.

    Raises `NotFound`, `Forbidden`.
    """
    now = now or timezone.now()
    edge = queries.edge_for(actor, edge.pk, Role.COLLABORATOR)
    with transaction.atomic():
        # Conditional, so that of two removals at once only one is told of.
        if Edge.objects.filter(pk=edge.pk, removed_at=None).update(removed_at=now):
            edge.join_tokens.filter(used_at=None, revoked_at=None).update(revoked_at=now)
            _record(edge, EdgeEvent.Kind.REMOVED, actor, now, reason=reason[:REASON])


def ban_edge(*, actor: User, edge: Edge, reason: str = "", now: datetime | None = None) -> Edge:
    """Refuses everything that an edge sends from now on, until `unban_edge`. Collaborators only.

    Raises `NotFound`, `Forbidden`.
    """
    now = now or timezone.now()
    edge = queries.edge_for(actor, edge.pk, Role.COLLABORATOR)
    with transaction.atomic():
        if Edge.objects.filter(pk=edge.pk, banned_at=None).update(banned_at=now):
            _record(edge, EdgeEvent.Kind.BANNED, actor, now, reason=reason[:REASON])
    return queries.edge_for(actor, edge.pk)


def unban_edge(*, actor: User, edge: Edge, reason: str = "", now: datetime | None = None) -> Edge:
    """Lifts a ban: the edge's session works again if it has not lapsed. Collaborators only.

    Raises `NotFound`, `Forbidden`.
    """
    now = now or timezone.now()
    edge = queries.edge_for(actor, edge.pk, Role.COLLABORATOR)
    with transaction.atomic():
        if Edge.objects.filter(pk=edge.pk, banned_at__isnull=False).update(banned_at=None):
            _record(edge, EdgeEvent.Kind.UNBANNED, actor, now, reason=reason[:REASON])
    return queries.edge_for(actor, edge.pk)


def check_fields(name: str, tags: Sequence[str], cpus: float, memory: str) -> None:
    """Refuses with `Invalid` what no edge may be called or have."""
    if not NAME.fullmatch(name):
        raise Invalid(
            _(
                "An edge's name has 1 to 128 letters, digits, hyphens, dots and underscores, and begins and "
                "ends with a letter or digit."
            )
        )
    if len(tags) > TAGS or not all(TAG.fullmatch(tag) for tag in tags):
        raise Invalid(_("An edge has at most %(tags)s tags of 1 to 64 printable characters.") % {"tags": TAGS})
    if not CPUS[0] <= cpus <= CPUS[1]:
        raise Invalid(_("cpus must be between %(least)s and %(most)g.") % {"least": CPUS[0], "most": CPUS[1]})
    if len(memory) > 16 or not MEMORY.fullmatch(memory):
        raise Invalid(_('memory must be a Kubernetes quantity such as "512Mi" or "1.5Gi".'))


def require_current(publish: Publish) -> None:
    """Refuses a publish that no edge can be added to. Raises `NotPublished`, `PublishReplaced`."""
    if publish.status != Publish.Status.PUBLISHED:
        raise NotPublished(
            _("Publish %(publish)s is %(status)s: wait until it is Published, or publish again.")
            % {"publish": publish.pk, "status": publish.status}
        )
    successor = queries.successor_of(publish)
    if successor:
        raise PublishReplaced(
            _("Publish %(publish)s was replaced by publish %(successor)s: add the edge there.")
            % {"publish": publish.pk, "successor": successor.pk},
            publish_id=successor.pk,
        )


def _lock(edge: Edge) -> Edge:
    # Always the edge before its tokens: one order, so that joins and reissues never wait for each other in a circle.
    locked = Edge.objects.select_for_update().filter(pk=edge.pk, removed_at=None).first()
    if locked is None:
        raise NotFound(_("There is no edge %(id)s for you.") % {"id": edge.pk})
    return locked


def _give_token(edge: Edge, actor: User, now: datetime) -> str:
    join_token = tokens.make_join_token()
    JoinToken.objects.create(
        edge=edge,
        digest=tokens.join_token_digest(join_token, settings.SECRET_KEY),
        expires_at=now + JOIN_TOKEN_LIFE,
        created_by=actor,
        created_at=now,
    )
    return join_token


def bundle_of(edge: Edge, join_token: str) -> str:
    """The bundle that lets an engine join as this edge. The edge comes with its publish and pipeline."""
    return bundle.encode(
        edge_name=edge.name,
        join_token=join_token,
        opscenter_host=settings.EDGE_HOST,
        pipeline_url=edge.publish.pipeline_url,
        workspace_id=edge.publish.pipeline_version.pipeline.workspace_id,
    )


def _record(edge: Edge, kind: EdgeEvent.Kind, actor: User, now: datetime, **detail: object) -> None:
    EdgeEvent.objects.create(edge=edge, kind=kind, actor=actor, at=now, detail=detail)
