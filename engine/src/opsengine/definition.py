"""pipeline.json (contract/pipeline.json): which models a pipeline holds, and the steps that run them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson

from opsengine import __version__, steps
from opsengine.errors import PipelineError
from opsengine.steps import Part, Stage

RUNTIMES = ("onnx", "python")
LARGEST_BATCH, LONGEST_WAIT = 100_000, 1_000_000  # rows, microseconds


@dataclass(frozen=True, slots=True)
class Batching:
    """Rows of several callers run together: at most `max_rows`, and no caller waits longer than `max_wait_us`."""

    max_rows: int
    max_wait_us: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as pipeline.json describes it."""

    name: str
    version: str
    sha: str
    runtime: str
    tensor_fields: tuple[str, ...] | None
    batching: Batching | None = None
    accel: str = "none"

    @property
    def digest(self) -> str:
        """The layer that holds the model's file."""
        return f"sha256:{self.sha}"


@dataclass(frozen=True, slots=True)
class Definition:
    """pipeline.json: name, version, the parts to run in order, and the models that they name, in order, each once."""

    pipeline: str
    version: str
    parts: tuple[Part, ...]
    models: tuple[ModelEntry, ...]


def read(data: bytes) -> Definition:
    """Read pipeline.json. Raises PipelineError for a format, step or model that this engine cannot serve."""
    try:
        told = orjson.loads(data)
        _check_engine(told)
        entries = {entry["version"]: _model(entry) for entry in told["models"]}
        parts = steps.read(told["definition"]["steps"])
        name, version = str(told["pipeline"]["name"]), str(told["pipeline"]["version"])
        named = [model.version for part in parts if isinstance(part, Stage) for model in part.models]
        models = tuple(entries[version] for version in dict.fromkeys(named))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError("The artifact's pipeline.json cannot be read: publish the pipeline again.") from None
    for entry in models:
        if entry.runtime not in RUNTIMES:
            raise PipelineError(
                f"Model {entry.name} needs the runtime {entry.runtime}, which engine {__version__} does not have."
            )
    return Definition(name, version, parts, models)


def _check_engine(told: Mapping[str, Any]) -> None:
    minimum = str(told.get("engine", {}).get("minimum", "0"))
    if told.get("format") != 1 or _numbers(minimum) > _numbers(__version__):
        raise PipelineError(
            f"The pipeline needs engine {minimum} or newer (format {told.get('format')}), this is {__version__}: "
            "update the engine."
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _model(entry: Mapping[str, Any]) -> ModelEntry:
    config = entry.get("config") or {}
    tensor_fields = config.get("tensor_fields")
    return ModelEntry(
        name=str(entry["name"]),
        version=str(entry["version"]),
        sha=str(entry["sha"]),
        runtime=str(entry.get("runtime", "onnx")),
        tensor_fields=tuple(map(str, tensor_fields)) if tensor_fields else None,
        batching=_batching(str(entry["name"]), config.get("batching")),
        accel=str(entry.get("accel") or "none"),
    )


def _batching(name: str, told: object) -> Batching | None:
    if told is None:
        return None
    if not isinstance(told, dict):
        raise PipelineError(f'Model {name}: "batching" is {{"max_rows", "max_wait_us"}}, or null.')
    rows, wait = told.get("max_rows"), told.get("max_wait_us")
    if not _is_whole(rows, 2, LARGEST_BATCH):
        raise PipelineError(f'Model {name}: "max_rows" of "batching" is a whole number from 2 to {LARGEST_BATCH}.')
    if not _is_whole(wait, 0, LONGEST_WAIT):
        raise PipelineError(
            f'Model {name}: "max_wait_us" of "batching" is a whole number from 0 to {LONGEST_WAIT} (microseconds).'
        )
    return Batching(rows, wait)


def _is_whole(value: object, least: int, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
