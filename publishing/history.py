"""What the Version History shows: each version of a pipeline beside its newest publish."""

from dataclasses import dataclass

from django.db.models import Prefetch, QuerySet

from catalog import queries as catalog
from catalog.models import Pipeline, PipelineVersion
from publishing import queries, schema_changes
from publishing.models import Publish
from publishing.schema_changes import Change, Comparison

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
    comparison: Comparison

    @property
    def changes(self) -> list[str]:
        """What changes, a sentence each."""
        return [found.text for found in self.comparison.differences]

    @property
    def considerations(self) -> tuple[str, str, str]:
        """What to think of before replacing: logs, drift detection, requests."""
        return schema_changes.considerations(self.comparison)

    @property
    def is_breaking(self) -> bool:
        """Whether requests or readers of today stop working."""
        return self.comparison.change is Change.BREAKING


def rows_of(pipeline: Pipeline, before: int | None = None) -> list[VersionRow]:
    """A page of the versions, newest first; `before` is the id of the last row of the page above."""
    ids = pipeline.versions.values_list("pk", flat=True)
    if before is not None:
        ids = ids.filter(pk__lt=before)
    can_replace = _replaceable(pipeline).exists()
    # Looked for are only ids, which an index of the pipeline's newest holds: for whole rows PostgreSQL does not use it.
    return [_row(version, can_replace) for version in _versions().filter(pk__in=list(ids[:PAGE_LENGTH]))]


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
    interfaces = queries.interfaces_of(versions)
    new = interfaces[version.pk]
    return [
        Candidate(
            publish,
            catalog.models_in(publish.pipeline_version.definition),
            schema_changes.compare(interfaces[publish.pipeline_version_id], new),
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
