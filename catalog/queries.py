"""Reads for an actor: each fetches and authorises at once, so no caller can forget the check.

A stranger to a workspace is told `NotFound`, as if it did not exist; a member whose role is too small, `Forbidden`.
"""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, Count, Max, OuterRef, Q, QuerySet, Subquery, When
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from catalog import definitions
from catalog.models import Membership, Model, ModelVersion, Pipeline, PipelineVersion, Role, User, Workspace
from common.errors import Forbidden, NotFound

Actor = User | AnonymousUser

# Of so many workspaces a query names the ids; beyond, it looks them up itself.
NAMED_WORKSPACES = 200


def workspaces_for(actor: Actor) -> QuerySet[Workspace]:
    """The workspaces that the actor may see: an administrator all, a user those it is a member of."""
    if isinstance(actor, AnonymousUser) or not actor.is_active:
        return Workspace.objects.none()
    if actor.is_superuser:
        return Workspace.objects.all()
    return Workspace.objects.filter(memberships__user=actor)


def seen_by(actor: Actor, path: str) -> Q:
    """That the workspace at `path` is one that the actor may see. Asks which these are, for who is no administrator.

    Told by name, the database knows how much they hold. Of memberships that it looks up itself PostgreSQL takes every
    workspace to be as large as any other, and reads what all of them hold for somebody who sees little.
    """
    if actor.is_active and actor.is_superuser:
        return Q()
    mine = workspaces_for(actor).order_by()
    named = list(mine.values_list("pk", flat=True)[: NAMED_WORKSPACES + 1])
    return Q(**{f"{path}__in": named if len(named) <= NAMED_WORKSPACES else mine})


def role_in(actor: Actor, workspace: Workspace) -> Role | None:
    """The actor's role in a workspace; an administrator is an owner everywhere."""
    if isinstance(actor, AnonymousUser) or not actor.is_active:
        return None
    if actor.is_superuser:
        return Role.OWNER
    membership = Membership.objects.filter(workspace=workspace, user=actor).first()
    return Role(membership.role) if membership else None


def workspace_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Workspace:
    """The workspace with this id. Raises `NotFound`, `Forbidden`."""
    workspace = Workspace.objects.filter(pk=pk).first()
    absent = _("There is no workspace %(id)s for you.") % {"id": pk}
    if workspace is None:
        raise NotFound(absent)
    require_role(actor, workspace, at_least, absent)
    return workspace


def model_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Model:
    """The model with this id. Raises `NotFound`, `Forbidden`."""
    model = Model.objects.select_related("workspace").filter(pk=pk).first()
    absent = _("There is no model %(id)s for you.") % {"id": pk}
    if model is None:
        raise NotFound(absent)
    require_role(actor, model.workspace, at_least, absent)
    return model


def model_version_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> ModelVersion:
    """The model version with this id. Raises `NotFound`, `Forbidden`."""
    version = ModelVersion.objects.select_related("model__workspace").filter(pk=pk).first()
    absent = _("There is no model version %(id)s for you.") % {"id": pk}
    if version is None:
        raise NotFound(absent)
    require_role(actor, version.model.workspace, at_least, absent)
    return version


def pipeline_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Pipeline:
    """The pipeline with this id. Raises `NotFound`, `Forbidden`."""
    pipeline = Pipeline.objects.select_related("workspace").filter(pk=pk).first()
    absent = _("There is no pipeline %(id)s for you.") % {"id": pk}
    if pipeline is None:
        raise NotFound(absent)
    require_role(actor, pipeline.workspace, at_least, absent)
    return pipeline


def pipeline_version_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> PipelineVersion:
    """The pipeline version with this id. Raises `NotFound`, `Forbidden`."""
    version = PipelineVersion.objects.select_related("pipeline__workspace").filter(pk=pk).first()
    absent = _("There is no pipeline version %(id)s for you.") % {"id": pk}
    if version is None:
        raise NotFound(absent)
    require_role(actor, version.pipeline.workspace, at_least, absent)
    return version


def whole_model_versions() -> QuerySet[ModelVersion]:
    """All model versions with what is shown of them. For versions whose ids were found for an actor."""
    # Not joined with their model, mostly the same one: for that PostgreSQL reads all models of the center.
    return ModelVersion.objects.select_related("created_by").prefetch_related("model__created_by", "configs")


def whole_pipeline_versions() -> QuerySet[PipelineVersion]:
    """All pipeline versions with what is shown of them. For versions whose ids were found for an actor."""
    return PipelineVersion.objects.select_related("created_by").prefetch_related("pipeline__created_by")


def version_pks(pipeline: Pipeline, uuids: Collection[UUID]) -> dict[UUID, int]:
    """The ids of a pipeline's versions by their UUIDs. For who was let in. Raises `NotFound` where one is not there."""
    found = dict(pipeline.versions.filter(uuid__in=uuids).order_by().values_list("uuid", "pk"))
    if missing := set(uuids) - found.keys():
        raise NotFound(
            _("Pipeline %(pipeline)s has no version %(version)s.") % {"pipeline": pipeline.pk, "version": min(missing)}
        )
    return found


def model_versions_of(version: PipelineVersion) -> list[ModelVersion]:
    """The model versions that a pipeline version names, each once, in the order of its steps."""
    uuids = list(dict.fromkeys(UUID(model["version"]) for model in models_in(version.definition)))
    found = {model.uuid: model for model in ModelVersion.objects.select_related("model").filter(uuid__in=uuids)}
    return [found[uuid] for uuid in uuids]


def models_in(definition: dict[str, object]) -> list[dict[str, str]]:
    """Every `{"name", "version", "sha"}` in a checked definition, in the order of its steps."""
    found: list[dict[str, str]] = []
    steps = definition.get("steps")
    for step in steps if isinstance(steps, list) else []:
        found.extend(definitions.references_in(step))
    return found


def answering_in(definition: dict[str, object]) -> list[str]:
    """The uuids of the model versions whose outputs go on from step to step: no shadows, of a split the first."""
    return [model.version for model in definitions.answering(definitions.read(definition["steps"]))]


def counted(workspaces: QuerySet[Workspace]) -> QuerySet[Workspace]:
    """The workspaces with `pipeline_count`, `model_count` and `member_count`."""

    def count(rows: QuerySet[Any]) -> Coalesce:
        of_workspace = rows.filter(workspace=OuterRef("pk")).order_by().values("workspace").annotate(n=Count("*"))
        return Coalesce(Subquery(of_workspace.values("n")), 0)

    return workspaces.annotate(
        pipeline_count=count(Pipeline.objects.all()),
        model_count=count(Model.objects.all()),
        member_count=count(Membership.objects.all()),
    )


def members_of(workspace: Workspace) -> QuerySet[Membership]:
    """Who is in the workspace, owners first."""
    rank = Case(*[When(role=role, then=rank) for rank, role in enumerate(reversed(Role))])
    return workspace.memberships.select_related("user").order_by(rank, "user__email")


def models_of(workspace: Workspace) -> QuerySet[Model]:
    """The workspace's models by name, each with its `version_count` and the id of its newest version, `newest_pk`."""
    versions = ModelVersion.objects.filter(model=OuterRef("pk")).order_by()
    count = versions.values("model").annotate(n=Count("*")).values("n")
    newest = versions.order_by("-pk").values("pk")[:1]
    return workspace.models.annotate(version_count=Coalesce(Subquery(count), 0), newest_pk=Subquery(newest))


def newest_model_versions(models: Iterable[Model]) -> list[tuple[Model, ModelVersion | None]]:
    """Models of `models_of`, each with its newest version. One query."""
    models = list(models)
    found = ModelVersion.objects.in_bulk([model.newest_pk for model in models if model.newest_pk])  # type: ignore[attr-defined]
    return [(model, found.get(model.newest_pk)) for model in models]  # type: ignore[attr-defined]


def usable_model_versions(workspace: Workspace) -> QuerySet[ModelVersion]:
    """What a pipeline's step may name: versions that an engine can serve, by model, newest first."""
    versions = ModelVersion.objects.filter(model__workspace=workspace, status=ModelVersion.Status.READY)
    return versions.select_related("model").order_by("model__name", "-id")


def newest_versions(pipelines: list[Pipeline]) -> dict[int, PipelineVersion]:
    """The newest version of each pipeline that has one, by the pipeline's id."""
    newest = Pipeline.objects.filter(pk__in=[pipeline.pk for pipeline in pipelines]).values_list(Max("versions__pk"))
    return {version.pipeline_id: version for version in PipelineVersion.objects.filter(pk__in=newest)}


def newest_steps(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The steps of the pipeline's newest version; none when there is none."""
    newest = pipeline.versions.first()
    return list(newest.definition["steps"]) if newest else []


def require_role(actor: Actor, workspace: Workspace, at_least: Role, absent: str) -> None:
    """The one rule of access. Raises `NotFound` for a stranger, told `absent`, `Forbidden` for too small a role."""
    role = role_in(actor, workspace)
    if role is None:
        raise NotFound(absent)
    if not role.covers(at_least):
        told = {"role": str(role.label).lower(), "needed": str(at_least.label).lower()}
        raise Forbidden(_("You are a %(role)s here; this needs the role %(needed)s.") % told)
