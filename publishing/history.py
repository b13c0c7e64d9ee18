"""What the Version History shows: each version of a pipeline beside its newest publish."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch, QuerySet, prefetch_related_objects

from catalog import queries as catalog
from catalog.models import ModelVersion, Pipeline, PipelineVersion
from publishing.models import Publish

PAGE_LENGTH = 20
CANDIDATES = 50  # publishes to choose from when one is to be replaced; older ones first lost their edges


@dataclass(frozen=True)
class VersionRow:
    """A version, the models of its steps, and its newest publish."""

    version: PipelineVersion
    models: list[dict[str, str]]
    publish: Publish | None
    can_replace: bool

    @property
    def percent(self) -> int:
        """How much of the bytes is there, 0 to 100."""
        if self.publish is None or not self.publish.bytes_total:
            return 0
        return min(100, self.publish.bytes_done * 100 // self.publish.bytes_total)


@dataclass(frozen=True)
class Candidate:
    """A publish that may be replaced by a version, and what that would change."""

    publish: Publish
    models: list[dict[str, str]]
    changes: list[str]


def rows_of(pipeline: Pipeline, before: int | None = None) -> list[VersionRow]:
    """A page of the versions, newest first; `before` is the id of the last row of the page above."""
    versions = _versions().filter(pipeline=pipeline)
    if before is not None:
        versions = versions.filter(pk__lt=before)
    can_replace = _replaceable(pipeline).exists()
    return [_row(version, can_replace) for version in versions[:PAGE_LENGTH]]


def row_of(version: PipelineVersion) -> VersionRow:
    """One line of the history, as it is now."""
    return _row(_versions().get(pk=version.pk), _replaceable(version.pipeline).exists())


def candidates_for(version: PipelineVersion) -> list[Candidate]:
    """The publishes of the workspace whose edges a publish of this version could take over, newest first."""
    publishes = (
        _replaceable(version.pipeline)
        .exclude(pipeline_version=version)
        .select_related("pipeline_version__pipeline", "created_by")[:CANDIDATES]
    )
    versions = [version, *(publish.pipeline_version for publish in publishes)]
    schemas = _schemas(versions)
    return [
        Candidate(
            publish,
            catalog.models_in(publish.pipeline_version.definition),
            _changes(schemas[publish.pipeline_version_id], schemas[version.pk]),
        )
        for publish in publishes
    ]


def newest_publishes(versions: list[PipelineVersion]) -> dict[int, Publish]:
    """The newest publish of each version, by the version's id."""
    publishes = Publish.objects.filter(pipeline_version__in=versions).order_by("id")
    return {publish.pipeline_version_id: publish for publish in publishes}


def _versions() -> QuerySet[PipelineVersion]:
    publishes = Publish.objects.select_related("created_by").prefetch_related(
        Prefetch("replaced_by", Publish.objects.filter(status=Publish.Status.PUBLISHED), "successors"),
    )
    return PipelineVersion.objects.select_related("created_by", "pipeline__workspace").prefetch_related(
        Prefetch("publishes", publishes)
    )


def _row(version: PipelineVersion, can_replace: bool) -> VersionRow:
    return VersionRow(
        version, catalog.models_in(version.definition), next(iter(version.publishes.all()), None), can_replace
    )


def _replaceable(pipeline: Pipeline) -> QuerySet[Publish]:
    published = Publish.Status.PUBLISHED
    found = Publish.objects.filter(status=published, pipeline_version__pipeline__workspace=pipeline.workspace_id)
    return found.exclude(replaced_by__status=published)


def _schemas(versions: list[PipelineVersion]) -> dict[int, tuple[str, str]]:
    """What a caller sends to each version and what comes back, as texts, by the version's id."""
    prefetch_related_objects(versions, "model_configs")
    chains = {version.pk: catalog.models_in(version.definition) for version in versions}
    references = {pk: [model["version"] for model in chain] for pk, chain in chains.items()}
    uuids = {uuid for chain in references.values() for uuid in chain}
    models = {str(model.uuid): model for model in ModelVersion.objects.filter(uuid__in=uuids)}
    columns = {
        (version.pk, config.model_version_id): config.tensor_fields
        for version in versions
        for config in version.model_configs.all()
    }
    found = {}
    for pk, chain in references.items():
        first, last = models[chain[0]], models[chain[-1]]
        found[pk] = _tensors(first.inputs, columns.get((pk, first.pk))), _tensors(last.outputs)
    return found


def _tensors(tensors: list[dict[str, Any]], names: list[str] | None = None) -> str:
    """`names` are the dataset columns, where they are not called as the model's tensors."""
    called = names or [tensor["name"] for tensor in tensors]
    return ", ".join(f"{name} ({tensor['type']})" for name, tensor in zip(called, tensors, strict=False)) or "unknown"


def _changes(old: tuple[str, str], new: tuple[str, str]) -> list[str]:
    named = zip(("inputs", "outputs"), old, new, strict=True)
    return [f"The {what} change from {before} to {after}." for what, before, after in named if before != after]
