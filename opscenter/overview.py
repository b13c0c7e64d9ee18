"""How far the pipelines of a workspace came, over all apps."""

from dataclasses import dataclass

from catalog.models import Pipeline, PipelineVersion, Workspace
from publishing.models import Publish


@dataclass(frozen=True)
class PipelineRow:
    """A line of the list of pipelines."""

    pipeline: Pipeline
    version: PipelineVersion | None
    publish: Publish | None


def pipelines_of(workspace: Workspace) -> list[PipelineRow]:
    """The pipelines by name. The number of queries does not depend on how many there are."""
    pipelines = list(workspace.pipelines.all())
    return [PipelineRow(pipeline, None, None) for pipeline in pipelines]
