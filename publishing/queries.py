"""Reads of publishing: publishes for an actor, what a version contains, where publishes go."""

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet, prefetch_related_objects
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from catalog import queries as catalog
from catalog import storage
from catalog.models import ModelVersion, Pipeline, PipelineVersion, Role
from catalog.queries import Actor
from common.errors import Forbidden, NotFound
from publishing import doctor, engine_config, engine_image, engine_images, schema_changes
from publishing.artifact import ModelFile, PipelineContent
from publishing.engine_image import EngineCopy
from publishing.errors import RegistryNotConfigured
from publishing.models import GoldenRequest, Publish, RegistrySettings, SigningKey
from publishing.publish_view import PublishView
from publishing.schema_changes import Interface

NOT_CONFIGURED = gettext_lazy(
    "No registry is configured to publish to: an administrator sets one in the admin console under Registry settings "
    "(or by OCI_REGISTRY)."
)
DISABLED = gettext_lazy(
    "Publishing is switched off: an administrator enables it in the admin console under Registry settings."
)
# Of so many publishes a query names the ids; beyond, it looks them up itself.
NAMED_PUBLISHES = 200


def publish_for(actor: Actor, pk: int, at_least: Role = Role.VIEWER) -> Publish:
    """The publish with this id, for a member of its workspace. Raises `NotFound`, `Forbidden`."""
    publish = _whole(Publish.objects.filter(pk=pk)).first()
    absent = _("There is no publish %(id)s for you.") % {"id": pk}
    if publish is None:
        raise NotFound(absent)
    catalog.require_role(actor, publish.pipeline_version.pipeline.workspace, at_least, absent)
    return publish


def version_to_publish(actor: Actor, pipeline_id: int, version_id: int | None) -> PipelineVersion:
    """A version of a pipeline, the newest when none is named, for a collaborator. Raises `NotFound`, `Forbidden`."""
    pipeline = catalog.pipeline_for(actor, pipeline_id, Role.COLLABORATOR)
    versions = pipeline.versions.select_related("pipeline")
    found = versions.filter(pk=version_id).first() if version_id is not None else versions.first()
    if found is None:
        if version_id is None:
            raise NotFound(_("The pipeline %(pipeline)s has no version yet.") % {"pipeline": pipeline.name})
        told = {"pipeline": pipeline.name, "id": version_id}
        raise NotFound(_("The pipeline %(pipeline)s has no version %(id)s.") % told)
    return found


def publishes_of(pipeline: Pipeline) -> QuerySet[Publish]:
    """A pipeline's publishes, newest first. The caller has authorised the pipeline.

    Not by their key as it is: for the first of a pipeline's many PostgreSQL walked those of the whole center from the
    newest on, all of them where the pipeline's are old.
    """
    versions = PipelineVersion.objects.filter(pipeline=pipeline).order_by().values("pk")
    return whole_publishes().filter(pipeline_version__in=versions).order_by(-F("pk"))


def whole_publishes() -> QuerySet[Publish]:
    """All publishes with what is shown of them. For publishes whose ids were found for an actor."""
    return _whole(Publish.objects.all())


def ids_of(publishes: Q) -> list[int] | QuerySet[Publish]:
    """The ids of some publishes, for `publish__in` of what belongs to them: edges, fleet tokens, rollouts.

    They are looked up apart. Joined, a pipeline with far more versions than others misleads SQLite once its tables were
    analysed: for each of ten thousand versions it read all edges. Few are named one by one: PostgreSQL does not know
    which publishes have the edges, and read those of the whole center for the list of a small pipeline.
    """
    found = Publish.objects.filter(publishes).order_by()
    named = list(found.values_list("pk", flat=True)[: NAMED_PUBLISHES + 1])
    return named if len(named) <= NAMED_PUBLISHES else found


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
        raise NotFound(str(NOT_CONFIGURED))
    return found


def require_administrator(actor: Actor) -> None:
    """Raises `Forbidden` for anyone else."""
    if not (actor.is_active and actor.is_superuser):
        raise Forbidden(_("Only an administrator may see or change the registry settings and signing keys."))


def registry_in_use() -> RegistrySettings:
    """The settings when publishing is possible. Raises `RegistryNotConfigured`."""
    found = registry_settings()
    if found is None or not found.registry:
        raise RegistryNotConfigured(str(NOT_CONFIGURED))
    if not found.enabled:
        raise RegistryNotConfigured(str(DISABLED))
    return found


def signing_keys() -> QuerySet[SigningKey]:
    """All keys, newest first, without their private halves."""
    return SigningKey.objects.defer("private_key")


def signing_key_for(pk: int) -> SigningKey:
    """A key by its id, without its private half; everybody who is logged in may verify. Raises `NotFound`."""
    found = signing_keys().filter(pk=pk).first()
    if found is None:
        raise NotFound(_("There is no signing key %(pk)s.") % {"pk": pk})
    return found


def signing_key_in_use() -> SigningKey | None:
    """The key that publishes are signed with, private half and all: for a worker only."""
    return SigningKey.objects.filter(active=True).first()


def golden_of(publish: Publish) -> str:
    """The golden.json that a publish ships; empty for none."""
    if publish.golden_id is None:
        return ""
    return GoldenRequest.objects.values_list("content", flat=True).get(pk=publish.golden_id)


def golden_for(actor: Actor, pk: int) -> str:
    """The golden.json of a publish, for a member of its workspace. Raises `NotFound`, `Forbidden`."""
    found = golden_of(publish_for(actor, pk))
    if not found:
        raise NotFound(_("Publish %(pk)s ships no golden request.") % {"pk": pk})
    return found


def settled_by(version: PipelineVersion) -> Publish | None:
    """A publish of this version that arrived or is on its way: what it ships, every other one does too."""
    found = Publish.objects.filter(pipeline_version=version).exclude(status=Publish.Status.ERROR)
    return found.select_related("golden").defer("golden__content").first()


def content_of(version: PipelineVersion, golden: str = "") -> PipelineContent:
    """Everything that the artifact of a version is made from; `golden` is the golden.json that goes with it."""
    configs = {config.model_version_id: config for config in version.model_configs.all()}
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
                tensor_fields=configs[model.pk].tensor_fields if model.pk in configs else None,
                batching=configs[model.pk].batching if model.pk in configs else None,
                inputs=model.inputs,
                outputs=model.outputs,
                open=partial(storage.open_file, model.sha256),
            )
            for model in catalog.model_versions_of(version)
        ),
        golden=golden,
    )


def interfaces_of(versions: list[PipelineVersion]) -> dict[int, Interface]:
    """What each version takes and gives, by its id. The versions come with their pipeline; two queries for them all."""
    prefetch_related_objects(versions, "model_configs")
    named = {version.pk: catalog.models_in(version.definition) for version in versions}
    uuids = {model["version"] for references in named.values() for model in references}
    models = {str(model.uuid): model for model in ModelVersion.objects.filter(uuid__in=uuids)}
    return {version.pk: _interface(version, named[version.pk], models) for version in versions}


def _interface(version: PipelineVersion, named: list[dict[str, str]], models: dict[str, ModelVersion]) -> Interface:
    columns = {config.model_version_id: config.tensor_fields for config in version.model_configs.all()}
    answering = catalog.answering_in(version.definition) if named else []
    first, last = (models.get(answering[0]), models.get(answering[-1])) if answering else (None, None)
    return Interface(
        pipeline=version.pipeline.name,
        models=tuple(dict.fromkeys(model["name"] for model in named)),
        inputs=schema_changes.tensors(first.inputs, columns.get(first.pk)) if first else (),
        outputs=schema_changes.tensors(last.outputs) if last else (),
        takes_any_name=_takes_any_name(version.definition, first, columns),
    )


def _takes_any_name(definition: dict[str, Any], first: ModelVersion | None, columns: dict[int, Any]) -> bool:
    """Whether the engine feeds the only input by position: one model without column names, and no step names any."""
    if first is None or len(first.inputs) != 1 or columns.get(first.pk):
        return False
    alone = len(definition["steps"][0].get("ModelInference", {}).get("models", [])) == 1
    # A validation reads the column by the name under which it was sent.
    return alone and '"in.' not in json.dumps([step["Check"] for step in definition["steps"] if "Check" in step])


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


def engine_copy(publish: Publish, registry: RegistrySettings) -> EngineCopy | None:
    """The engine image that goes with a publish; None when none is configured. Raises `UnusableEngineImage`."""
    needs = engine_config.needs_of(publish.engine_config)
    image = engine_image.chosen(engine_images.current().text, needs.arch, needs.accel)
    return engine_image.copy_of(image, registry.repository) if image else None


def known_layer(version: PipelineVersion) -> dict[str, Any]:
    """What an earlier publish recorded of the layer with this version's models, so that it is not hashed again."""
    found = Publish.objects.filter(pipeline_version=version).exclude(image_layer={}).order_by("-pk").first()
    return found.image_layer if found else {}


def password_warning(row: RegistrySettings | None, fault: Exception | None = None) -> str:
    """That a token which the registry lets live shortly is too old by now; empty when it is not, or cannot tell.

    With a `fault`, only where that was a refusal.
    """
    if row is None or row.password_saved_at is None or getattr(fault, "status", 401) not in {401, 403}:
        return ""
    return doctor.password_age(row.registry, row.password_saved_at, timezone.now())


def view_of(publish: Publish, edge: str = "") -> PublishView:
    """What commands and the SDK's shapes need to know of a publish that `publish_for` or `publishes_of` read.

    `edge` is the name of the one that it is for.
    """
    version = publish.pipeline_version
    return PublishView(
        pipeline=version.pipeline.name,
        version=str(version.uuid),
        registry=publish.pipeline_url.partition("/")[0],
        plain_http=publish.plain_http,
        pipeline_url=publish.pipeline_url,
        engine_url=publish.engine_url,
        image_url=publish.image_url,
        image_digest=publish.image_digest,
        chart_url=publish.chart_url,
        chart_version=publish.chart_version,
        chart_digest=publish.chart_digest,
        needs=engine_config.needs_of(publish.engine_config),
        pipeline_digest=publish.pipeline_digest,
        signed=publish.signing_key_id is not None,
        edge=edge,
    )


def _whole(publishes: QuerySet[Publish]) -> QuerySet[Publish]:
    related = publishes.select_related("pipeline_version__pipeline__workspace", "created_by", "signing_key", "golden")
    # The private half of a key is for workers only, and a golden request may be large.
    related = related.defer("signing_key__private_key", "golden__content")
    return related.prefetch_related("replaces__pipeline_version__pipeline")
