"""Reads of rollouts: each fetches and authorises at once. A rollout concerns the workspaces of all its publishes."""

import dataclasses
from collections.abc import Iterable

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from catalog import queries as catalog
from catalog.models import Pipeline, Role, Workspace
from catalog.queries import Actor
from common.errors import NotFound
from edges.models import Edge
from publishing import queries as publishing
from publishing.models import Publish
from rollouts.models import Bucket, Rollout, RolloutEvent, RolloutGroup, RolloutMember

REPLACED_IN = "replaced__pipeline_version__pipeline__workspace"


@dataclasses.dataclass(frozen=True)
class GroupProgress:
    """A group with its members counted by bucket."""

    group: RolloutGroup
    counts: dict[str, int]
    total: int

    @property
    def done(self) -> int:
        """Edges that proved the target."""
        return self.counts[Bucket.DONE]

    @property
    def state(self) -> str:
        """`waiting`, `open` or `passed`."""
        if self.group.passed_at:
            return "passed"
        return "open" if self.group.opened_at else "waiting"


@dataclasses.dataclass(frozen=True)
class Progress:
    """A rollout's members counted by bucket, as a whole and by group. Every bucket is there."""

    counts: dict[str, int]
    total: int
    groups: tuple[GroupProgress, ...]


def rollouts_for(actor: Actor) -> QuerySet[Rollout]:
    """The rollouts that the actor may see, newest first: a member of every workspace that one concerns."""
    mine = catalog.seen_by(actor, "pipeline_version__pipeline__workspace")
    if not mine:
        return whole_rollouts()
    # Asked of each rollout that is found, not of all of the center.
    elsewhere = Publish.objects.filter(rollouts_away=OuterRef("pk")).exclude(mine)
    return whole_rollouts().filter(~Exists(elsewhere), publish__in=publishing.ids_of(mine))


def of_pipeline(actor: Actor, pipeline: Pipeline) -> QuerySet[Rollout]:
    """The rollouts to or from a pipeline that the actor may see, newest first."""
    here = publishing.ids_of(Q(pipeline_version__pipeline=pipeline))
    away = Rollout.replaced.through.objects.filter(publish__in=here)
    return rollouts_for(actor).filter(Q(publish__in=here) | Q(pk__in=away.values("rollout")))


def rollout_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Rollout:
    """The rollout with this id. Raises `NotFound`, `Forbidden`."""
    rollout = whole_rollouts().filter(pk=pk).first()
    absent = _("There is no rollout %(id)s for you.") % {"id": pk}
    if rollout is None:
        raise NotFound(absent)
    for workspace in {_workspace(publish) for publish in (rollout.publish, *rollout.replaced.all())}:
        catalog.require_role(actor, workspace, at_least, absent)
    return rollout


def publish_for(actor: Actor, pk: int, at_least: Role) -> Publish:
    """A publish to roll out, or to be replaced. Raises `NotFound`, `Forbidden`."""
    publish = Publish.objects.select_related("pipeline_version__pipeline__workspace").filter(pk=pk).first()
    absent = _("There is no publish %(id)s for you.") % {"id": pk}
    if publish is None:
        raise NotFound(absent)
    catalog.require_role(actor, _workspace(publish), at_least, absent)
    return publish


def progress_of(rollout: Rollout) -> Progress:
    """How far a rollout is. Two queries, however many edges it has."""
    return progress_of_all([rollout])[rollout.pk]


def progress_of_all(rollouts: Iterable[Rollout]) -> dict[int, Progress]:
    """How far each rollout is, by its id. Two queries, however many they are and however many edges they have."""
    pks = [rollout.pk for rollout in rollouts]
    members = RolloutMember.objects.filter(rollout__in=pks).order_by()
    counted: dict[int, dict[str, int]] = {}
    for group_pk, bucket, total in members.values_list("group", "bucket").annotate(total=Count("pk")):
        counted.setdefault(group_pk, {})[bucket] = total
    groups: dict[int, list[GroupProgress]] = {pk: [] for pk in pks}
    for group in RolloutGroup.objects.filter(rollout__in=pks):
        counts = _filled(counted.get(group.pk, {}))
        groups[group.rollout_id].append(GroupProgress(group, counts, sum(counts.values())))
    return {pk: _together(found) for pk, found in groups.items()}


def _together(groups: list[GroupProgress]) -> Progress:
    whole = {bucket.value: sum(found.counts[bucket] for found in groups) for bucket in Bucket}
    return Progress(whole, sum(whole.values()), tuple(groups))


def members_of(rollout: Rollout, bucket: str = "", group: int | None = None) -> QuerySet[RolloutMember]:
    """The members in the order in which they are reached. One query, also for their edges."""
    members = rollout.members.select_related("edge", "group")
    if bucket:
        members = members.filter(bucket=bucket)
    return members if group is None else members.filter(group__order=group)


def events_of(rollout: Rollout) -> QuerySet[RolloutEvent]:
    """What happened to a rollout, newest first."""
    return rollout.events.select_related("actor")


def targets_for(actor: Actor, pipeline: Pipeline) -> QuerySet[Publish]:
    """The publishes of a pipeline that can be rolled out, newest first."""
    return _in_use(actor).filter(pipeline_version__pipeline=pipeline)


def replaceable_for(actor: Actor, pipeline: Pipeline) -> QuerySet[Publish]:
    """The publishes of a pipeline's workspace that have edges to take over, newest first."""
    found = _in_use(actor).filter(pipeline_version__pipeline__workspace=pipeline.workspace_id)
    edges = Edge.objects.filter(removed_at=None, publish=OuterRef("pk"))
    return found.filter(Exists(edges))


def _in_use(actor: Actor) -> QuerySet[Publish]:
    published = Publish.Status.PUBLISHED
    mine = Publish.objects.filter(pipeline_version__pipeline__workspace__in=catalog.workspaces_for(actor))
    found = mine.filter(status=published).exclude(replaced_by__status=published)
    return found.select_related("pipeline_version__pipeline").order_by("-pk")


def _filled(counts: dict[str, int]) -> dict[str, int]:
    return {bucket.value: counts.get(bucket.value, 0) for bucket in Bucket}


def _workspace(publish: Publish) -> Workspace:
    return publish.pipeline_version.pipeline.workspace


def whole_rollouts() -> QuerySet[Rollout]:
    """All rollouts with what is shown of them. For rollouts whose ids were found for an actor."""
    found = Rollout.objects.select_related("publish__pipeline_version__pipeline__workspace", "created_by")
    return found.prefetch_related("replaced__pipeline_version__pipeline__workspace")
