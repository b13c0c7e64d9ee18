"""A pipeline artifact (contract/artifact.manifest.json, contract/pipeline.json) made ready to serve."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from opsengine import __version__
from opsengine.decode import Batch
from opsengine.errors import PipelineError, RegistryError, RequestError
from opsengine.fields import Array, Field, fit
from opsengine.registry import MANIFEST_TYPE
from opsengine.rows import Facts
from opsengine.runtime import Input, OnnxModel
from opsengine.store import ContentStore

CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
CONFIG_PATH = "pipeline.json"
PATH_ANNOTATION = "org.cncf.model.filepath"
LARGEST_CONFIG = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer of the artifact."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as pipeline.json describes it."""

    name: str
    version: str
    sha: str
    runtime: str
    tensor_fields: tuple[str, ...] | None

    @property
    def digest(self) -> str:
        """The layer that holds the model's file."""
        return f"sha256:{self.sha}"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a manifest and its pipeline.json say; nothing is loaded yet."""

    digest: str
    config: Blob
    layers: dict[str, Blob]

    @property
    def digests(self) -> set[str]:
        """Every blob that the artifact needs, the manifest included."""
        return {self.digest, *self.layers}


@dataclass(frozen=True, slots=True)
class Definition:
    """pipeline.json: the name, the version, and the models of each step in order."""

    pipeline: str
    version: str
    steps: tuple[ModelEntry, ...]


def read_manifest(digest: str, data: bytes) -> Artifact:
    """Read an artifact's manifest. Raises PipelineError if it is not a pipeline's."""
    try:
        manifest = orjson.loads(data)
        if manifest.get("mediaType", MANIFEST_TYPE) != MANIFEST_TYPE:
            raise PipelineError(f"{digest} is not a pipeline but {manifest['mediaType']}: check PIPELINE_URL.")
        found = [(layer, Blob(layer["digest"], int(layer["size"]))) for layer in manifest["layers"]]
        configs = [blob for layer, blob in found if layer["mediaType"] == CONFIG_TYPE and _path(layer) == CONFIG_PATH]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(f"The manifest {digest} cannot be read: publish the pipeline again.") from None
    if len(configs) != 1 or configs[0].size > LARGEST_CONFIG:
        raise PipelineError(f"{digest} holds no {CONFIG_PATH}: PIPELINE_URL must name a published pipeline.")
    return Artifact(digest, configs[0], {blob.digest: blob for _, blob in found})


def _path(layer: Mapping[str, Any]) -> str:
    return str(layer.get("annotations", {}).get(PATH_ANNOTATION, ""))


def read_definition(data: bytes) -> Definition:
    """Read pipeline.json. Raises PipelineError for a format, step or model that this engine cannot serve."""
    try:
        told = orjson.loads(data)
        _check_engine(told)
        models = {entry["version"]: _model(entry) for entry in told["models"]}
        steps = tuple(_step(step, models) for step in told["definition"]["steps"])
        name, version = str(told["pipeline"]["name"]), str(told["pipeline"]["version"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(f"The artifact's {CONFIG_PATH} cannot be read: publish the pipeline again.") from None
    if not steps:
        raise PipelineError(f"Pipeline {name} has no steps: add a model and publish it again.")
    return Definition(name, version, steps)


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
    tensor_fields = (entry.get("config") or {}).get("tensor_fields")
    return ModelEntry(
        name=str(entry["name"]),
        version=str(entry["version"]),
        sha=str(entry["sha"]),
        runtime=str(entry.get("runtime", "onnx")),
        tensor_fields=tuple(map(str, tensor_fields)) if tensor_fields else None,
    )


def _step(step: Mapping[str, Any], models: Mapping[str, ModelEntry]) -> ModelEntry:
    kind = next(iter(step))
    if kind != "ModelInference":
        raise PipelineError(
            f"The pipeline has a {kind} step, which engine {__version__} does not run: update the engine."
        )
    listed = step[kind]["models"]
    if len(listed) != 1:
        raise PipelineError(
            f"The pipeline has a step with {len(listed)} models, engine {__version__} runs one a step: "
            "update the engine."
        )
    entry = models[listed[0]["version"]]
    if entry.runtime != "onnx":
        raise PipelineError(
            f"Model {entry.name} needs the runtime {entry.runtime}, which engine {__version__} does not have."
        )
    return entry


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a model, and which columns feed it."""

    entry: ModelEntry
    model: OnnxModel

    def source(self, node: Input, at: int, columns: Mapping[str, Field], *, is_first: bool) -> str:
        """The column for an input: by `tensor_fields`, else by the input's name, else the only one there is.

        `tensor_fields` names what callers send, so it binds the first step; later steps are fed by the step before.
        """
        named = self.entry.tensor_fields[at] if self.entry.tensor_fields else None
        if named is not None and (named in columns or is_first):
            name = named
        elif node.name in columns or len(columns) > 1 or len(self.model.inputs) > 1:
            name = node.name
        else:
            name = next(iter(columns))
        if name not in columns:
            raise RequestError(f'Column "{name}" is missing: model {self.entry.name} needs it (got {_few(columns)}).')
        return name


def _few(columns: Mapping[str, Field]) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


class LoadedPipeline:
    """A pipeline in memory, warm. It never changes, so a request that holds it runs wholly on it."""

    def __init__(
        self, artifact: Artifact, definition: Definition, store: ContentStore, cpus: int, partition: str
    ) -> None:
        self.digest = artifact.digest
        self.definition = definition
        self.since = int(time.time() * 1000)
        self.steps = tuple(Step(entry, _load(entry, artifact, store, cpus)) for entry in definition.steps)
        last = definition.steps[-1]
        names = orjson.dumps({"model_name": last.name, "model_sha": last.sha}).decode()
        self.facts = Facts(definition.pipeline, definition.version, names, last.name, last.version, partition)

    def prepare(self, batch: Batch) -> tuple[dict[str, Field], dict[str, Array]]:
        """The columns as they are recorded, and the first model's inputs. Raises RequestError naming a wrong column.

        Recorded is what the model sees: its number type, in the shape that was sent.
        """
        step, recorded, inputs = self.steps[0], dict(batch.columns), {}
        for at, node in enumerate(step.model.inputs):
            name = step.source(node, at, batch.columns, is_first=True)
            array = node.prepare(batch.columns[name], name)
            recorded[name] = array
            inputs[node.name] = fit(array, node.shape, name)
        return recorded, inputs

    def run(self, inputs: dict[str, Array]) -> tuple[dict[str, Field], list[int]]:
        """Outputs of the last step, and the nanoseconds of each step. Raises RequestError."""
        elapsed: list[int] = []
        outputs: dict[str, Field] = {}
        for number, step in enumerate(self.steps):
            began = time.perf_counter_ns()
            outputs = step.model.run(_chained(step, outputs) if number else inputs)
            elapsed.append(time.perf_counter_ns() - began)
        return outputs, elapsed


def _chained(step: Step, columns: Mapping[str, Field]) -> dict[str, Array]:
    inputs = {}
    for at, node in enumerate(step.model.inputs):
        name = step.source(node, at, columns, is_first=False)
        inputs[node.name] = fit(node.prepare(columns[name], name), node.shape, name)
    return inputs


def _load(entry: ModelEntry, artifact: Artifact, store: ContentStore, cpus: int) -> OnnxModel:
    if entry.digest not in artifact.layers:
        raise PipelineError(f"The artifact lacks the file of model {entry.name}: publish the pipeline again.")
    model = OnnxModel(store.path(entry.digest), entry.name, cpus)
    if entry.tensor_fields and len(entry.tensor_fields) != len(model.inputs):
        raise PipelineError(
            f"Model {entry.name} has {len(model.inputs)} inputs, "
            f"but its tensor_fields name {len(entry.tensor_fields)}: configure it again."
        )
    model.warm()
    return model


def load(digest: str, store: ContentStore, cpus: int, partition: str) -> LoadedPipeline:
    """Load a pulled pipeline from the local store and warm it. Raises PipelineError or RegistryError."""
    try:
        artifact = read_manifest(digest, store.read(digest))
        definition = read_definition(store.read(artifact.config.digest))
    except OSError as error:
        raise RegistryError(f"The local copy of {digest} is not complete: {error.strerror}.") from error
    return LoadedPipeline(artifact, definition, store, cpus, partition)
