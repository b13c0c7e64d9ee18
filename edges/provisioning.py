"""What people do with many edges at once: add them, give them bundles, and tokens with which devices add themselves.

As in `operations`: each verb authorises its actor, is one short transaction, and refuses by raising.
"""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext

from catalog.models import Role, User
from common.errors import Invalid, NotFound
from edges import bundle, operations, patterns, queries, tokens
from edges.errors import EdgeNameTaken
from edges.models import Assignment, Edge, EdgeEvent, FleetToken, JoinToken
from edges.operations import Added
from publishing import queries as publishing
from publishing.models import Publish

BULK = 1000
CSV_COLUMNS = ("name", "tags", "cpus", "memory")
FLEET_TOKEN_LIFE = timedelta(days=30)
FLEET_EDGES = 100_000


@dataclasses.dataclass(frozen=True)
class NewEdge:
    """What a person says of an edge to be added."""

    name: str
    tags: tuple[str, ...] = ()
    cpus: float = 1.0
    memory: str = "1Gi"


@dataclasses.dataclass(frozen=True)
class MovedEdge:
    """An edge of a publish; with a fresh bundle when it cannot go on without one."""

    edge: Edge
    bundle: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class NewFleetToken:
    """A fleet token. Its bundle, the same for all devices, is a secret, and nobody can be shown it again."""

    token: FleetToken
    bundle: str = dataclasses.field(repr=False)


def read_csv(text: str) -> list[NewEdge]:
    """Edges from CSV with a header: `name` and, if wanted, `tags` (separated by `;`), `cpus`, `memory`.

    Raises `Invalid` that names the line.
    """
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        header = [name.strip() for name in rows.fieldnames or []]
        if "name" not in header or not set(header) <= set(CSV_COLUMNS) or len(set(header)) != len(header):
            raise Invalid(
                gettext("The first line must name the columns: name and, if wanted, %(columns)s.")
                % {"columns": ", ".join(CSV_COLUMNS[1:])}
            )
        rows.fieldnames = header
        return [_of_row(row, rows.line_num) for row in rows]
    except csv.Error as exc:
        raise Invalid(
            gettext("Line %(line)s is not CSV: %(reason)s.") % {"line": rows.line_num, "reason": exc}
        ) from exc


def read_names(text: str, like: NewEdge) -> list[NewEdge]:
    """Edges from names, one a line, or from CSV as of `read_csv`; names alone get the rest from `like`.

    Raises `Invalid` that names the line.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]
    if lines and (lines[0] == "name" or "," in lines[0]):
        return read_csv(text)
    return [dataclasses.replace(like, name=line) for line in lines]


def numbered(pattern: str, first: int, count: int, like: NewEdge) -> list[NewEdge]:
    """Edges named by a pattern and numbers from `first` on. Raises `Invalid`."""
    if not 1 <= count <= BULK:
        raise Invalid(gettext("Add from 1 to %(bulk)s edges at once.") % {"bulk": BULK})
    return [dataclasses.replace(like, name=patterns.name_of(pattern, number)) for number in range(first, first + count)]


def add_edges(*, actor: User, publish: Publish, edges: Sequence[NewEdge], now: datetime | None = None) -> list[Added]:
    """Up to 1,000 new edges of a publish with their bundles, in the order given: all of them or none.

    Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`, `NotPublished`, `PublishReplaced`, `EdgeNameTaken`.
    """
    now = now or timezone.now()
    publish = publishing.publish_for(actor, publish.pk, Role.COLLABORATOR)
    _check_all(edges)
    operations.require_current(publish)
    try:
        with transaction.atomic():
            made = [_edge(publish, actor, now, **dataclasses.asdict(edge)) for edge in edges]
            Edge.objects.bulk_create(made)
            Assignment.objects.bulk_create(Assignment(edge=edge, publish=publish, since=now) for edge in made)
            given = _give_tokens(made, actor, now)
            _record(made, EdgeEvent.Kind.ADDED, actor, now, publish=publish.pk)
    except IntegrityError as exc:
        taken = Edge.objects.filter(name__in=[edge.name for edge in edges], removed_at=None).values_list(
            "name", flat=True
        )
        if not taken:
            raise
        shown = ", ".join(sorted(taken)[:10])
        raise EdgeNameTaken(
            gettext("No edge was added, because these names are in use: %(names)s.") % {"names": shown},
            names=list(taken),
        ) from exc
    return given


def bundles_for(
    *, actor: User, publish: Publish, edges: Sequence[UUID] | None = None, reason: str = "", now: datetime | None = None
) -> list[MovedEdge]:
    """The edges of a publish, or some of them, each with what its site needs to start the publish's engine.

    An edge that never joined, or whose session is over, gets a new bundle; its earlier unused ones end. An edge with a
    live session gets none: its engine knows who it is. Banned ones are left out. At most 1,000 at once. Collaborators
    only. Raises `NotFound`, `Forbidden`, `Invalid`.
    """
    now = now or timezone.now()
    publish = publishing.publish_for(actor, publish.pk, Role.COLLABORATOR)
    found = _edges_of(actor, publish, edges)
    with transaction.atomic():
        # In the order of their keys and before their tokens, like everybody else who locks more than one.
        needing = Edge.objects.select_for_update().filter(pk__in=[edge.pk for edge in found], removed_at=None)
        needy = {edge.pk for edge in needing.order_by("pk") if _needs_bundle(edge, now)}
        renewed = [edge for edge in found if edge.pk in needy]
        JoinToken.objects.filter(edge__in=renewed, used_at=None, revoked_at=None).update(revoked_at=now)
        bundles = {added.edge.pk: added.bundle for added in _give_tokens(renewed, actor, now)}
        _record(
            renewed, EdgeEvent.Kind.TOKEN_REISSUED, actor, now, publish=publish.pk, reason=reason[: operations.REASON]
        )
    return [MovedEdge(edge, bundles.get(edge.pk, "")) for edge in found]


def make_fleet_token(
    *,
    actor: User,
    publish: Publish,
    pattern: str,
    max_edges: int,
    life: timedelta = FLEET_TOKEN_LIFE,
    tags: Sequence[str] = (),
    cpus: float = 1.0,
    memory: str = "1Gi",
    now: datetime | None = None,
) -> NewFleetToken:
    """One token for many devices alike: each that joins with it becomes an edge named by the pattern.

    Collaborators only. Raises `NotFound`, `Forbidden`, `Invalid`, `NotPublished`, `PublishReplaced`.
    """
    now = now or timezone.now()
    publish = publishing.publish_for(actor, publish.pk, Role.COLLABORATOR)
    if not 1 <= max_edges <= FLEET_EDGES:
        raise Invalid(gettext("max_edges must be from 1 to %(fleet_edges)s.") % {"fleet_edges": FLEET_EDGES})
    if not timedelta(minutes=1) <= life <= FLEET_TOKEN_LIFE:
        raise Invalid(gettext("A fleet token lives from one minute to 30 days."))
    operations.check_fields(patterns.name_of(pattern, max_edges), tags, cpus, memory)
    operations.require_current(publish)
    token = tokens.make_join_token()
    made = FleetToken.objects.create(
        publish=publish,
        digest=tokens.join_token_digest(token, settings.SECRET_KEY),
        pattern=pattern,
        tags=list(tags),
        cpus=cpus,
        memory=memory,
        max_edges=max_edges,
        expires_at=now + life,
        created_by=actor,
        created_at=now,
    )
    return NewFleetToken(made, _fleet_bundle(made, token))


def revoke_fleet_token(*, actor: User, token: FleetToken, reason: str = "", now: datetime | None = None) -> FleetToken:
    """Lets nobody join with a fleet token any more; the edges that it made stay. Collaborators only.

    Raises `NotFound`, `Forbidden`.
    """
    now = now or timezone.now()
    token = queries.fleet_token_for(actor, token.pk, Role.COLLABORATOR)
    FleetToken.objects.filter(pk=token.pk, revoked_at=None).update(
        revoked_at=now, revoked_by=actor, revoke_reason=reason[: operations.REASON]
    )
    return queries.fleet_token_for(actor, token.pk)


def _of_row(row: dict[str | None, Any], line: int) -> NewEdge:
    if None in row or None in row.values():
        raise Invalid(gettext("Line %(line)s has not as many fields as the first line.") % {"line": line})
    given = {str(name): str(value).strip() for name, value in row.items() if str(value).strip()}
    try:
        cpus = float(given.get("cpus", 1.0))
    except ValueError as exc:
        raise Invalid(gettext("Line %(line)s: cpus must be a number.") % {"line": line}) from exc
    tags = tuple(tag.strip() for tag in given.get("tags", "").split(";") if tag.strip())
    return NewEdge(given.get("name", ""), tags, cpus, given.get("memory", "1Gi"))


def _check_all(edges: Sequence[NewEdge]) -> None:
    if not 1 <= len(edges) <= BULK:
        raise Invalid(gettext("Add from 1 to %(bulk)s edges at once.") % {"bulk": BULK})
    for number, edge in enumerate(edges, start=1):
        try:
            operations.check_fields(edge.name, edge.tags, edge.cpus, edge.memory)
        except Invalid as exc:
            raise Invalid(
                gettext("Edge %(number)s (%(name)r): %(reason)s")
                % {"number": number, "name": edge.name[:128], "reason": exc.message}
            ) from exc
    twice = [name for name, times in Counter(edge.name for edge in edges).items() if times > 1]
    if twice:
        raise Invalid(gettext("These names are there more than once: %(names)s.") % {"names": ", ".join(twice[:10])})


def _edge(publish: Publish, actor: User, now: datetime, **fields: Any) -> Edge:
    fields["tags"] = list(fields["tags"])
    return Edge(publish=publish, created_by=actor, created_at=now, **fields)


def _give_tokens(edges: Sequence[Edge], actor: User, now: datetime) -> list[Added]:
    fresh = [tokens.make_join_token() for _ in edges]
    JoinToken.objects.bulk_create(
        JoinToken(
            edge=edge,
            digest=tokens.join_token_digest(token, settings.SECRET_KEY),
            expires_at=now + operations.JOIN_TOKEN_LIFE,
            created_by=actor,
            created_at=now,
        )
        for edge, token in zip(edges, fresh, strict=True)
    )
    return [Added(edge, operations.bundle_of(edge, token)) for edge, token in zip(edges, fresh, strict=True)]


def _record(edges: Sequence[Edge], kind: EdgeEvent.Kind, actor: User, now: datetime, **detail: object) -> None:
    EdgeEvent.objects.bulk_create(EdgeEvent(edge=edge, kind=kind, actor=actor, at=now, detail=detail) for edge in edges)


def _edges_of(actor: User, publish: Publish, wanted: Sequence[UUID] | None) -> list[Edge]:
    rows = queries.edges_for(actor, publish=publish).filter(banned_at=None)
    if wanted is not None:
        rows = rows.filter(pk__in=wanted)
    found = list(rows[: BULK + 1])
    if len(found) > BULK:
        raise Invalid(gettext("There are more than %(bulk)s edges: name at most as many in edges.") % {"bulk": BULK})
    missing = set(wanted or ()) - {edge.pk for edge in found}
    if missing:
        raise NotFound(
            gettext("Publish %(publish)s has no edge %(name)s that could get a bundle.")
            % {"publish": publish.pk, "name": min(map(str, missing))}
        )
    return found


def _needs_bundle(edge: Edge, now: datetime) -> bool:
    return edge.joined_at is None or edge.session_lapses_at is None or edge.session_lapses_at <= now


def _fleet_bundle(token: FleetToken, secret: str) -> str:
    return bundle.encode(
        # Only the center knows which name a device will get; this one is for people who look into the bundle.
        edge_name=f"fleet-token-{token.pk}",
        join_token=secret,
        opscenter_host=settings.EDGE_HOST,
        pipeline_url=token.publish.pipeline_url,
        workspace_id=token.publish.pipeline_version.pipeline.workspace_id,
    )
