"""What changes the catalog. Each verb authorises its actor, is one short transaction, and refuses by raising."""

from dataclasses import asdict
from pathlib import PurePath
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from catalog import connections, definitions, model_configs, onnx_files, python_files, queries, storage
from catalog.errors import NameTaken, UnusableDefinition
from catalog.models import (
    Membership,
    Model,
    ModelConfig,
    ModelVersion,
    Pipeline,
    PipelineVersion,
    Role,
    User,
    Workspace,
    name_validator,
)
from common.errors import Conflict, Invalid, NotFound

ARCHITECTURES = ("x86", "arm", "power10")
ACCELERATORS = ("none", "cuda", "jetson", "openvino", "qaic")
FRAMEWORKS = ("onnx", "python")
UNUSABLE_NAMES = {
    "model": gettext_lazy("The model's name %(name)r cannot be used. %(reason)s"),
    "pipeline": gettext_lazy("The pipeline's name %(name)r cannot be used. %(reason)s"),
}
LONG_NAMES = {
    "model": ngettext_lazy(
        "The model's name has %(count)s characters, at most 63 are possible.",
        "The model's name has %(count)s characters, at most 63 are possible.",
        "count",
    ),
    "pipeline": ngettext_lazy(
        "The pipeline's name has %(count)s characters, at most 63 are possible.",
        "The pipeline's name has %(count)s characters, at most 63 are possible.",
        "count",
    ),
}


def create_workspace(*, actor: User, name: str) -> Workspace:
    """A new workspace, owned by the actor. Raises `NameTaken`, `Invalid`."""
    name = name.strip()
    if not name or len(name) > 128:
        raise Invalid(_("A workspace's name has 1 to 128 characters."))
    try:
        with transaction.atomic():
            workspace = Workspace.objects.create(name=name, created_by=actor)
            Membership.objects.create(workspace=workspace, user=actor, role=Role.OWNER)
    except IntegrityError as exc:
        raise NameTaken(_("There is a workspace %(name)r already: choose another name.") % {"name": name}) from exc
    return workspace


def set_member(*, actor: User, workspace: Workspace, email: str, role: Role) -> Membership:
    """Lets a user in, or changes its role. Owners only. Raises `Forbidden`, `NotFound`, `Conflict`."""
    queries.workspace_for(actor, workspace.pk, Role.OWNER)
    user = User.objects.filter(email__iexact=email.strip(), is_active=True).first()
    if user is None:
        raise NotFound(
            _("There is no user %(email)s: an administrator adds users in the admin console.") % {"email": email}
        )
    with transaction.atomic():
        members = Membership.objects.select_for_update().filter(workspace=workspace)
        membership = members.filter(user=user).first() or Membership(workspace=workspace, user=user)
        if membership.role == Role.OWNER and role != Role.OWNER:
            _refuse_last_owner(workspace, user)
        membership.role = role
        membership.save()
    return membership


def remove_member(*, actor: User, workspace: Workspace, user: User) -> None:
    """Takes a member out. Owners only, or the member itself. Raises `Forbidden`, `NotFound`, `Conflict`."""
    queries.workspace_for(actor, workspace.pk, Role.VIEWER if actor == user else Role.OWNER)
    with transaction.atomic():
        members = Membership.objects.select_for_update().filter(workspace=workspace)
        membership = members.filter(user=user).first()
        if membership is None:
            raise NotFound(
                _("%(user)s is not a member of %(workspace)s.") % {"user": user.email, "workspace": workspace.name}
            )
        if membership.role == Role.OWNER:
            _refuse_last_owner(workspace, user)
        membership.delete()


def create_model_version(
    *,
    actor: User,
    workspace: Workspace,
    name: str,
    upload: storage.Writer,
    file_name: str,
    framework: str = "onnx",
    arch: str = "x86",
    accel: str = "none",
    tensor_fields: list[str] | None = None,
    batching: dict[str, Any] | None = None,
) -> ModelVersion:
    """Keeps an uploaded file as the newest version of the model `name`, which it makes when it is new.

    A file that no engine could serve becomes a version with status `error` and the reason.
    Raises `Forbidden`, `Invalid`, `StorageFull`.
    """
    queries.workspace_for(actor, workspace.pk, Role.COLLABORATOR)
    _check_name("model", name)
    for value, allowed, what in (
        (framework, FRAMEWORKS, "framework"),
        (arch, ARCHITECTURES, "arch"),
        (accel, ACCELERATORS, "accel"),
    ):
        if value not in allowed:
            raise Invalid(
                _("%(what)s is one of %(allowed)s, not %(value)r.")
                % {"what": what, "allowed": ", ".join(allowed), "value": value}
            )
    if not upload.size:
        raise Invalid(_("The file is empty: choose the model's file."))
    sha256 = upload.keep()
    described = _described(sha256, framework)
    with transaction.atomic():
        model = _model(actor, workspace, name)
        version = ModelVersion.objects.create(
            model=model,
            sha256=sha256,
            size=upload.size,
            file_name=PurePath(file_name.replace("\\", "/")).name[:255] or "model.onnx",
            framework=framework,
            arch=arch,
            accel=accel,
            created_by=actor,
            **described,
        )
        # There is a config from the first moment, so that "the newest config" always exists.
        _configure(version, tensor_fields, batching)
    return version


def configure_model_version(
    *,
    actor: User,
    version: ModelVersion,
    tensor_fields: list[str] | None,
    batching: dict[str, Any] | None = None,
) -> ModelConfig:
    """Says which dataset columns feed the inputs, in their order, and how engines batch rows of different callers.

    Made pipeline versions keep the config they have. Raises `Forbidden`, `Invalid`.
    """
    queries.model_version_for(actor, version.pk, Role.COLLABORATOR)
    return _configure(version, tensor_fields, batching)


def create_pipeline(*, actor: User, workspace: Workspace, name: str) -> Pipeline:
    """A new pipeline without versions. Raises `Forbidden`, `NameTaken`, `Invalid`."""
    queries.workspace_for(actor, workspace.pk, Role.COLLABORATOR)
    _check_name("pipeline", name)
    try:
        with transaction.atomic():
            return Pipeline.objects.create(workspace=workspace, name=name, created_by=actor)
    except IntegrityError as exc:
        raise NameTaken(
            _("There is a pipeline %(name)r in %(workspace)s already: choose another name.")
            % {"name": name, "workspace": workspace.name}
        ) from exc


def create_pipeline_version(
    *, actor: User, pipeline: Pipeline, steps: Any, deployment_config: dict[str, Any] | None = None
) -> PipelineVersion:
    """The pipeline's newest version, which never changes. The models' configs of this moment become part of it.

    `steps` is `[{"ModelInference": {"models": [{"name", "version", "sha"?}]}}, …]` (docs/pipelines.md). Raises
    `Forbidden`, `UnusableDefinition`.
    """
    queries.pipeline_for(actor, pipeline.pk, Role.COLLABORATOR)
    parts = definitions.read(steps)
    named = {model.version: _referenced(pipeline, number, model) for number, model in definitions.models_of(parts)}
    configs = {version: model.configs.first() for version, model in named.items()}
    connections.check(
        parts,
        {
            version: connections.signature(model, config.tensor_fields if (config := configs[version]) else None)
            for version, model in named.items()
        },
    )
    shas = {version: model.sha256 for version, model in named.items()}
    with transaction.atomic():
        made = PipelineVersion.objects.create(
            pipeline=pipeline,
            definition={"id": pipeline.name, "steps": definitions.with_shas(steps, shas)},
            deployment_config=deployment_config or {},
            created_by=actor,
        )
        made.model_configs.set(config for config in configs.values() if config)
        pipeline.save(update_fields=["updated_at"])
    return made


def steps_of(versions: list[ModelVersion]) -> list[dict[str, Any]]:
    """The steps that run these model versions one after another."""
    return [_step(version) for version in versions]


def _step(version: ModelVersion) -> dict[str, Any]:
    reference = {"name": version.model.name, "version": str(version.uuid), "sha": version.sha256}
    return {"ModelInference": {"models": [reference]}}


def _referenced(pipeline: Pipeline, number: int, reference: definitions.Reference) -> ModelVersion:
    version = (
        ModelVersion.objects.select_related("model")
        .filter(uuid=UUID(reference.version), model__name=reference.name, model__workspace=pipeline.workspace_id)
        .first()
    )
    if version is None:
        raise UnusableDefinition(
            _("Step %(number)s: there is no version %(version)s of a model %(reference)r in the pipeline's workspace.")
            % {"number": number, "version": reference.version, "reference": reference.name}
        )
    if reference.sha not in (None, version.sha256):
        raise UnusableDefinition(
            _("Step %(number)s: the file of %(reference)r has another sha: %(sha256)s.")
            % {"number": number, "reference": reference.name, "sha256": version.sha256}
        )
    return version


def _described(sha256: str, framework: str) -> dict[str, Any]:
    read_schema = python_files.read_schema if framework == "python" else onnx_files.read_schema
    try:
        schema = read_schema(storage.path_of(sha256))
    except onnx_files.UnusableModel as exc:
        return {"status": ModelVersion.Status.ERROR, "error": str(exc)}
    return {"status": ModelVersion.Status.READY, **asdict(schema)}


def _model(actor: User, workspace: Workspace, name: str) -> Model:
    model, made = Model.objects.get_or_create(workspace=workspace, name=name, defaults={"created_by": actor})
    if not made:
        model.save(update_fields=["updated_at"])
    return model


def _configure(version: ModelVersion, tensor_fields: list[str] | None, batching: dict[str, Any] | None) -> ModelConfig:
    return ModelConfig.objects.create(
        model_version=version,
        tensor_fields=model_configs.tensor_fields(version, tensor_fields),
        batching=model_configs.batching(version, batching),
    )


def _check_name(what: str, name: str) -> None:
    try:
        name_validator(name)
    except ValidationError as exc:
        raise Invalid(UNUSABLE_NAMES[what] % {"name": name, "reason": exc.messages[0]}) from exc
    if len(name) > 63:
        raise Invalid(LONG_NAMES[what] % {"count": len(name)})


def _refuse_last_owner(workspace: Workspace, user: User) -> None:
    others = Membership.objects.filter(workspace=workspace, role=Role.OWNER).exclude(user=user)
    if not others.exists():
        raise Conflict(
            _("%(user)s is the last owner of %(workspace)s: make somebody else an owner first.")
            % {"user": user.email, "workspace": workspace.name}
        )
