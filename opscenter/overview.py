"""How far the pipelines of a workspace came, over all apps."""

from collections.abc import Iterable
from dataclasses import dataclass

from catalog import queries as catalog
from catalog.models import Pipeline, PipelineVersion
from edges import queries as edges
from logs import queries as logs
from publishing import history
from publishing.models import Publish


@dataclass(frozen=True)
class PipelineRow:
    """A line of the list of pipelines. `publish` is the newest of the newest version."""

    pipeline: Pipeline
    version: PipelineVersion | None
    publish: Publish | None
    edges: int
    rows_today: int
    anomalies_today: int


def rows_of(pipelines: Iterable[Pipeline]) -> list[PipelineRow]:
    """A line for each of these pipelines. The number of queries does not depend on how many there are."""
    pipelines = list(pipelines)
    versions = catalog.newest_versions(pipelines)
    publishes = history.newest_publishes(list(versions.values()))
    edge_counts, rows_today = edges.edge_counts(pipelines), logs.rows_today(pipelines)
    anomalies = logs.anomalies_today(pipelines)
    return [
        PipelineRow(
            pipeline,
            version := versions.get(pipeline.pk),
            publishes.get(version.pk) if version else None,
            edge_counts[pipeline.pk],
            rows_today[pipeline.pk],
            anomalies[pipeline.pk],
        )
        for pipeline in pipelines
    ]
