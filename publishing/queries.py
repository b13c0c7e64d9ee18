"""Reads of publishing: publishes for an actor, what a version contains, where publishes go."""

from collections.abc import Iterable
from functools import partial

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet

from catalog import queries as catalog
from catalog import storage
from catalog.models import Pipeline, PipelineVersion, Role
from catalog.queries import Actor
from common.errors import Forbidden, NotFound
from publishing import engine_config
from publishing.artifact import ModelFile, PipelineContent
from publishing.errors import RegistryNotConfigured
from publishing.models import Publish, RegistrySettings, SigningKey
from publishing.publish_view import PublishView

NOT_CONFIGURED = (
    "No registry is configured to publish to: an administrator sets one in the admin console under Registry settings "
    "(or by OCI_REGISTRY)."
)
DISABLED = "Publishing is switched off: an administrator enables it in the admin console under Registry settings."


def publish_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Publish:
    """The publish with this id, for a member of its workspace. Raises `NotFound`, `Forbidden`."""
    publish = _whole(Publish.objects.filter(pk=pk)).first()
    if publish is None:
        raise NotFound(f"There is no publish {pk} for you.")
    role = catalog.role_in(actor, publish.pipeline_version.pipeline.workspace)
    if role is None:
        raise NotFound(f"There is no publish {pk} for you.")
    if not role.covers(at_least):
        raise Forbidden(f"You are a {role.label.lower()} here; this needs the role {at_least.label.lower()}.")
    return publish


def publishes_of(pipeline: Pipeline) -> QuerySet[Publish]:
    """A pipeline's publishes, newest first. The caller has authorised the pipeline."""
    return _whole(Publish.objects.filter(pipeline_version__pipeline=pipeline))


def registry_rows() -> QuerySet[RegistrySettings]:
    """The one row, without the password, which only a worker decrypts; `has_password` tells if one is set."""
    has_password = ExpressionWrapper(~Q(password=""), output_field=BooleanField())
    return RegistrySettings.objects.filter(pk=1).defer("password").annotate(has_password=has_password)


def registry_settings() -> RegistrySettings | None:
    """Where publishes go, without the password. None when nobody said."""
    return registry_rows().first()


def registry_settings_for(actor: Actor) -> RegistrySettings:
    """The registry settings, for an administrator. Raises `Forbidden`, `NotFound`."""
    require_administrator(actor)
    found = registry_settings()
    if found is None:
        raise NotFound(NOT_CONFIGURED)
    return found


def require_administrator(actor: Actor) -> None:
    """Raises `Forbidden` for anyone else."""
    if not (actor.is_active and actor.is_superuser):
        raise Forbidden("Only an administrator may see or change the registry settings and signing keys.")


def registry_in_use() -> RegistrySettings:
    """The settings when publishing is possible. Raises `RegistryNotConfigured`."""
    found = registry_settings()
    if found is None or not found.registry:
        raise RegistryNotConfigured(NOT_CONFIGURED)
    if not found.enabled:
        raise RegistryNotConfigured(DISABLED)
    return found


def signing_keys() -> QuerySet[SigningKey]:
    """All keys, newest first, without their private halves."""
    return SigningKey.objects.defer("private_key")


def signing_key_for(pk: int) -> SigningKey:
    """A key by its id, without its private half; everybody who is logged in may verify. Raises `NotFound`."""
    found = signing_keys().filter(pk=pk).first()
    if found is None:
        raise NotFound(f"There is no signing key {pk}.")
    return found


def signing_key_in_use() -> SigningKey | None:
    """The key that publishes are signed with, private half and all: for a worker only."""
    return SigningKey.objects.filter(active=True).first()


def content_of(version: PipelineVersion) -> PipelineContent:
    """Everything that the artifact of a version is made from."""
    fields = {config.model_version_id: config.tensor_fields for config in version.model_configs.all()}
    return PipelineContent(
        name=version.pipeline.name,
        version=str(version.uuid),
        created_at=version.created_at,
        definition=version.definition,
        models=tuple(
            ModelFile(
                name=model.model.name,
                version=str(model.uuid),
                sha256=model.sha256,
                size=model.size,
                file_name=model.file_name,
                framework=model.framework,
                arch=model.arch,
                accel=model.accel,
                tensor_fields=fields.get(model.pk),
                inputs=model.inputs,
                outputs=model.outputs,
                open=partial(storage.open_file, model.sha256),
            )
            for model in catalog.model_versions_of(version)
        ),
    )


def mount_sources(content: PipelineContent, registry: RegistrySettings) -> dict[str, str]:
    """By digest, another pipeline's repository in this registry that has a model file already, so no bytes travel."""
    prefix = f"{registry.registry}/"
    digests = {model.sha256 for model in content.models}
    rows: Iterable[tuple[str, str]] = (
        Publish.objects.filter(status=Publish.Status.PUBLISHED, pipeline_url__startswith=prefix)
        .filter(pipeline_version__model_configs__model_version__sha256__in=digests)
        .exclude(pipeline_version__pipeline__name=content.name)
        .order_by("pk")
        .values_list("pipeline_version__model_configs__model_version__sha256", "pipeline_url")
        .distinct()
    )
    return {
        f"sha256:{sha256}": url.removeprefix(prefix).rpartition(":")[0] for sha256, url in rows if sha256 in digests
    }


def view_of(publish: Publish) -> PublishView:
    """What commands and the SDK's shapes need to know of a publish that `publish_for` or `publishes_of` read."""
    version = publish.pipeline_version
    return PublishView(
        pipeline=version.pipeline.name,
        version=str(version.uuid),
        registry=publish.pipeline_url.partition("/")[0],
        plain_http=publish.plain_http,
        pipeline_url=publish.pipeline_url,
        engine_url=publish.engine_url,
        chart_url=publish.chart_url,
        chart_version=publish.chart_version,
        chart_digest=publish.chart_digest,
        needs=engine_config.needs_of(publish.engine_config),
        pipeline_digest=publish.pipeline_digest,
        signed=publish.signing_key_id is not None,
    )


def _whole(publishes: QuerySet[Publish]) -> QuerySet[Publish]:
    return publishes.select_related("pipeline_version__pipeline__workspace", "created_by").prefetch_related(
        "replaces__pipeline_version__pipeline"
    )
