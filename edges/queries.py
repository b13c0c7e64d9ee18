"""Reads of edges: for people, each fetches and authorises at once; for engines, what they are to do."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from catalog import queries as catalog
from catalog.models import Pipeline, PipelineVersion, Role, Workspace
from common.errors import NotFound
from edges import health, states
from edges.errors import PipelineNotAssigned
from edges.health import Health
from edges.models import Edge, EdgeEvent, FleetToken, JoinToken
from edges.states import Desired, EdgeState, State
from publishing import queries as publishing
from publishing.models import Publish

REFUSALS = (EdgeEvent.Kind.JOIN_REFUSED, EdgeEvent.Kind.TOKEN_REFUSED)
# Enough to see a pattern; the whole history has an address of its own.
EXPLAINED_EVENTS = 5
LAPSING_SHOWN = 1000
# Publishes that edges run; what each says never changes once it is published, and only then it has edges.
DESIRED_KEPT = 1024

edge_state = states.edge_state


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why an edge is as it is, and what to do: for people and, as it is, for programs."""

    state: EdgeState
    next_step: str
    join_token: JoinToken | None
    last_refusal: EdgeEvent | None
    events: tuple[EdgeEvent, ...]
    health: Health
    lines: tuple[str, ...]
    report: dict[str, Any]

    @property
    def clock_offset(self) -> int | None:
        """ms that its clock was ahead at its last check-in."""
        return self.health.clock_offset

    @property
    def disk_free(self) -> float | None:
        """The share of its disk that was free."""
        return self.health.disk_free


@dataclasses.dataclass(frozen=True)
class FleetSummary:
    """How the edges that somebody may see are. `lapsing` end their sessions within `hours`, the first first."""

    total: int
    states: dict[State, int]
    as_they_should: int
    failed_updates: int
    hours: float
    lapsing: tuple[Edge, ...]
    lapsing_total: int


def edges_for(
    actor: catalog.Actor,
    *,
    workspace: Workspace | int | None = None,
    pipeline: Pipeline | int | None = None,
    publish: Publish | int | None = None,
    name: str | None = None,
) -> QuerySet[Edge]:
    """The edges that the actor may see, by name, without removed ones. One query, also for their states.

    What they belong to is asked at once.
    """
    found = whole_edges().filter(removed_at=None)
    theirs = catalog.seen_by(actor, "pipeline_version__pipeline__workspace")
    if workspace is not None:
        theirs &= Q(pipeline_version__pipeline__workspace=workspace)
    if pipeline is not None:
        theirs &= Q(pipeline_version__pipeline=pipeline)
    if publish is not None:
        theirs &= Q(pk=publish if isinstance(publish, int) else publish.pk)
    if name is not None:
        found = found.filter(name=name)
        # The one edge is found by its name, not among those of all publishes.
        theirs &= Q(pk__in=Edge.objects.filter(name=name, removed_at=None).order_by().values("publish"))
    return found.filter(publish__in=publishing.ids_of(theirs)) if theirs else found


def whole_edges() -> QuerySet[Edge]:
    """All edges with what their states are told from. For edges whose ids were found for an actor."""
    return Edge.objects.select_related("publish__pipeline_version__pipeline__workspace", "created_by")


def named_or_tagged(edges: QuerySet[Edge], text: str) -> QuerySet[Edge]:
    """The edges with this text in their name or in a tag, in any case."""
    # The tags are compared as JSON text, in which SQLite has what is not ASCII escaped and PostgreSQL has not.
    escaped = json.dumps(text)[1:-1]
    return edges.annotate(tag_text=Cast("tags", TextField())).filter(
        Q(name__icontains=text) | Q(tag_text__icontains=text) | Q(tag_text__icontains=escaped)
    )


def serving(edges: QuerySet[Edge], what: str) -> QuerySet[Edge]:
    """The edges that serve what they should (`right`), that joined and do not (`other`), whose update `failed`."""
    joined = edges.filter(joined_at__isnull=False)
    if what == "failed":
        return joined.filter(report__update__state="failed")
    return joined.filter(_serves_right()) if what == "right" else joined.exclude(_serves_right())


def publishes_to_run(pipeline: Pipeline) -> QuerySet[Publish]:
    """The publishes of a pipeline that an edge can be added to, newest first."""
    published = Publish.objects.filter(pipeline_version__pipeline=pipeline, status=Publish.Status.PUBLISHED)
    return published.exclude(replaced_by__status=Publish.Status.PUBLISHED).select_related("pipeline_version")


def edge_counts(pipelines: Iterable[Pipeline]) -> dict[int, int]:
    """How many edges should run each pipeline, by its id."""
    found = {pipeline.pk: 0 for pipeline in pipelines}
    publishes = publishing.ids_of(Q(pipeline_version__pipeline__in=list(found)))
    edges = Edge.objects.filter(publish__in=publishes, removed_at=None)
    counts = dict(edges.order_by().values_list("publish").annotate(total=Count("pk")))
    of = Publish.objects.filter(pk__in=list(counts)).values_list("pk", "pipeline_version__pipeline")
    for publish, pipeline in of:
        found[pipeline] += counts[publish]
    return found


def edge_counts_by_publish(publishes: Iterable[Publish]) -> dict[int, int]:
    """How many edges should run each publish, by its id."""
    ids = [publish.pk for publish in publishes]
    counted = Edge.objects.filter(removed_at=None, publish__in=ids).order_by().values_list("publish")
    return dict.fromkeys(ids, 0) | dict(counted.annotate(total=Count("pk")))


def edge_for(actor: catalog.Actor, pk: UUID, at_least: Role = Role.VIEWER, *, removed: bool = False) -> Edge:
    """The edge with this id; with `removed`, also one that was removed. Raises `NotFound`, `Forbidden`."""
    edge = whole_edges().filter(pk=pk).first()
    absent = _("There is no edge %(id)s for you.") % {"id": pk}
    if edge is None or (edge.removed_at and not removed):
        raise NotFound(absent)
    catalog.require_role(actor, edge.publish.pipeline_version.pipeline.workspace, at_least, absent)
    return edge


def fleet_tokens_of(publish: Publish) -> QuerySet[FleetToken]:
    """The fleet tokens of a publish, newest first. The caller has authorised the publish."""
    return whole_fleet_tokens().filter(publish=publish)


def fleet_tokens_in(pipeline: Pipeline) -> QuerySet[FleetToken]:
    """The fleet tokens of all publishes of a pipeline, newest first. The caller has authorised the pipeline."""
    return whole_fleet_tokens().filter(publish__in=publishing.ids_of(Q(pipeline_version__pipeline=pipeline)))


def fleet_token_for(actor: catalog.Actor, pk: int, at_least: Role = Role.VIEWER) -> FleetToken:
    """The fleet token with this id. Raises `NotFound`, `Forbidden`."""
    token = whole_fleet_tokens().filter(pk=pk).first()
    absent = _("There is no fleet token %(id)s for you.") % {"id": pk}
    if token is None:
        raise NotFound(absent)
    catalog.require_role(actor, token.publish.pipeline_version.pipeline.workspace, at_least, absent)
    return token


def whole_fleet_tokens() -> QuerySet[FleetToken]:
    """All fleet tokens with what is shown of them. For tokens whose ids were found for an actor."""
    return FleetToken.objects.select_related(
        "publish__pipeline_version__pipeline__workspace", "created_by", "revoked_by"
    )


def events_of(edge: Edge) -> QuerySet[EdgeEvent]:
    """What happened to an edge, newest first."""
    return edge.events.select_related("actor")


def explanation_of(edge: Edge, now: datetime) -> Explanation:
    """Everything that says why an edge does or does not do what it should."""
    state = edge_state(edge, now)
    token = edge.join_tokens.filter(revoked_at=None).first()
    events = events_of(edge)
    found, last_refusal = health.of_report(edge.report), events.filter(kind__in=REFUSALS).first()
    next_step = _next_step(edge, state, token, now)
    return Explanation(
        state=state,
        next_step=next_step,
        join_token=token,
        last_refusal=last_refusal,
        events=tuple(events[:EXPLAINED_EVENTS]),
        health=found,
        lines=(*_lines(edge, state, found, last_refusal), next_step),
        report=edge.report,
    )


def summary_for(edges: QuerySet[Edge], now: datetime, hours: float, named: int = LAPSING_SHOWN) -> FleetSummary:
    """How the edges of a query are, in three queries however many there are. At most `named` of `lapsing` are told."""
    live = {state: states.in_state(state, now) for state in State if state is not State.REMOVED}
    joined = Q(joined_at__isnull=False, banned_at=None)
    lapsing = joined & Q(session_lapses_at__gt=now, session_lapses_at__lte=now + timedelta(hours=hours))
    counts = edges.order_by().aggregate(
        total=Count("pk"),
        right=Count("pk", filter=joined & _serves_right()),
        failed=Count("pk", filter=joined & Q(report__update__state="failed")),
        lapsing=Count("pk", filter=lapsing),
        **{f"in_{state.name}": Count("pk", filter=condition) for state, condition in live.items()},
    )
    return FleetSummary(
        total=counts["total"],
        states={state: counts[f"in_{state.name}"] for state in live},
        as_they_should=counts["right"],
        failed_updates=counts["failed"],
        hours=hours,
        lapsing=_first_to_lapse(edges.filter(lapsing), named) if counts["lapsing"] else (),
        lapsing_total=counts["lapsing"],
    )


def _first_to_lapse(edges: QuerySet[Edge], named: int) -> tuple[Edge, ...]:
    """Sorted are only ids: whole edges would all be carried along."""
    ids = list(edges.order_by("session_lapses_at", "name").values_list("pk", flat=True)[:named])
    found = whole_edges().in_bulk(ids)
    return tuple(found[pk] for pk in ids if pk in found)


def desired(publish_id: int) -> Desired:
    """What the edges of a publish should serve. Read once in a process."""
    return _desired(publish_id)


@functools.lru_cache(maxsize=DESIRED_KEPT)
def _desired(publish_id: int) -> Desired:
    return states.desired_of(Publish.objects.select_related("pipeline_version__pipeline").get(pk=publish_id))


def forget_desired() -> None:
    """Makes this process read again what publishes say."""
    _desired.cache_clear()


def successor_of(publish: Publish) -> Publish | None:
    """Where the edges of a publish belong now: the end of the chain of published replacements, None when it has none.

    Of two that replaced the same publish the one that was published first counts: it took the edges, so the other
    found none. That makes the end the same whenever and however often it is looked for.
    """
    chain = [publish]
    while following := (
        chain[-1]
        .replaced_by.filter(status=Publish.Status.PUBLISHED)
        .exclude(pk__in=[known.pk for known in chain])
        .select_related("pipeline_version__pipeline")
        .order_by("published_at", "pk")
        .first()
    ):
        chain.append(following)
    return chain[-1] if len(chain) > 1 else None


def replaced_with_edges(within: Iterable[int] | None = None) -> list[Publish]:
    """The publishes that were replaced and still have edges; `within` limits it to some."""
    edges = Edge.objects.filter(removed_at=None, publish__replaced_by__status=Publish.Status.PUBLISHED)
    if within is not None:
        edges = edges.filter(publish__in=within)
    return list(Publish.objects.filter(pk__in=edges.values("publish")).order_by("pk"))


def assigned_pipeline_version(edge: Edge, version_uuid: UUID) -> PipelineVersion:
    """The pipeline version with this UUID, if the edge was ever told to run it. Raises `PipelineNotAssigned`."""
    version = (
        PipelineVersion.objects.select_related("pipeline")
        .filter(uuid=version_uuid, publishes__assignments__edge=edge)
        .first()
    )
    if version is None:
        raise PipelineNotAssigned(
            f"This edge was never told to run pipeline version {version_uuid}, so its logs are not taken."
        )
    return version


def acked(edge: Edge, epoch: UUID) -> int:
    """Up to which row of a log store of the edge is durable here.

    The marks belong to the app above, which hung them on `Edge`: they are read over that relation, not imported.
    """
    return edge.log_marks.filter(epoch=epoch).values_list("acked", flat=True).first() or 0


@dataclasses.dataclass(frozen=True)
class LeftBehind:
    """Unsent rows of a log store that the edge lost: `last` was the store's last, `overwritten` cannot come any more.

    An older copy of a store gives the numbers of the rows which it lost to others; a whole store may be put back.
    """

    last: int = 0
    overwritten: int = 0
    noticed_at: datetime | None = None

    def rows(self, acked: int) -> int:
        """How many did not come, when all up to `acked` did."""
        return self.overwritten + max(0, self.last - acked)


def left_behind(edge: Edge) -> dict[UUID, LeftBehind]:
    """What the edge lost with its log stores, by their epoch."""
    left: dict[UUID, LeftBehind] = {}
    for detail, at in edge.events.filter(kind=EdgeEvent.Kind.ROWS_LEFT_BEHIND).values_list("detail", "at"):
        # Of several times the first: events come the latest first.
        known = dataclasses.replace(left.get(UUID(detail["epoch"]), LeftBehind()), noticed_at=at)
        if detail["is_copy"]:
            changed = dataclasses.replace(known, overwritten=known.overwritten + detail["rows"])
        else:
            changed = dataclasses.replace(known, last=max(known.last, detail["last_sequence"]))
        left[UUID(detail["epoch"])] = changed
    return left


def _serves_right() -> Q:
    """That an edge serves what it should. Its publish is looked up by its key, which no planner can do otherwise."""
    should = Publish.objects.filter(pk=OuterRef("publish")).values("pipeline_digest")
    return ~Q(serving_digest="") & Q(serving_digest=Subquery(should))


def _lines(edge: Edge, state: EdgeState, found: Health, refusal: EdgeEvent | None) -> list[str]:
    """The whole explanation, a sentence or two a line: the same for the page and for programs."""
    should = state.should_run
    lines = [
        _("It should run publish %(publish)s (%(pipeline)s, version %(version)s).")
        % {"publish": should.publish_id, "pipeline": should.pipeline, "version": should.pipeline_version}
    ]
    if state.serving_digest:
        lines.append(_("It proved that it serves %(digest)s.") % {"digest": state.serving_digest})
    lines.append(state.explain)
    live = state.state in {State.ONLINE, State.LATE, State.OFFLINE, State.LAPSING}
    if live and state.lapses_at and state.state is State.ONLINE:
        lines.append(
            _("If it fell silent now, it would need a new bundle after %(time)s.") % {"time": _utc(state.lapses_at)}
        )
    if live and edge.joined_at:
        lines += health.sentences(found)
    if lost := sum(left.rows(acked(edge, epoch)) for epoch, left in left_behind(edge).items()):
        lines.append(
            ngettext(
                "%(rows)s of its rows was not sent before it came with another log store: lost unless it comes.",
                "%(rows)s of its rows were not sent before it came with another log store: lost unless they come.",
                lost,
            )
            % {"rows": f"{lost:,}"}
        )
    if refusal:
        cause = refusal.detail.get("message") or refusal.detail.get("code") or refusal.kind
        lines.append(_("Last refused at %(time)s: %(cause)s") % {"time": _utc(refusal.at), "cause": cause})
    return lines


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _next_step(edge: Edge, state: EdgeState, token: JoinToken | None, now: datetime) -> str:
    match state.state:
        case State.NEVER_JOINED if token and token.expires_at > now:
            return _("Start the engine with its bundle before %(time)s.") % {"time": _utc(token.expires_at)}
        case State.NEVER_JOINED | State.EXPIRED:
            return _("Reissue the bundle and start the engine with the new one.")
        case State.BANNED:
            return _("Lift the ban, if the edge can be trusted again.")
        case State.REMOVED:
            return _("Add an edge, if the site is to come back.")
        case State.LATE | State.OFFLINE | State.LAPSING:
            return _(
                "See whether the site has power and a way to this center; nothing is lost while its store has room."
            )
    if state.is_serving:
        return _("Nothing to do.")
    if (edge.report.get("update") or {}).get("state") == "failed":
        return _("Put right what its error says, or publish a version that it can run.")
    return _("Wait for its next check-ins.")
