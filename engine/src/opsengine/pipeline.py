"""A pipeline artifact (contract/artifact.manifest.json, contract/pipeline.json) made ready to serve."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from opsengine import connections, definition, gathering, providers, steps, validations
from opsengine.batching import Batcher
from opsengine.connections import Signature, Tensor
from opsengine.decode import Batch
from opsengine.definition import Definition, ModelEntry
from opsengine.errors import PipelineError, RegistryError
from opsengine.fields import Array, Field
from opsengine.pymodel import PythonModel
from opsengine.registry import MANIFEST_TYPE
from opsengine.rows import Answering, Facts, Result
from opsengine.runtime import Model, OnnxModel
from opsengine.stages import LoadedStage, Node
from opsengine.steps import Checks, Stage
from opsengine.store import ContentStore

read_definition = definition.read

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
class Artifact:
    """What a manifest and its pipeline.json say; nothing is loaded yet."""

    digest: str
    config: Blob
    layers: dict[str, Blob]

    @property
    def digests(self) -> set[str]:
        """Every blob that the artifact needs, the manifest included."""
        return {self.digest, *self.layers}


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


class LoadedPipeline:
    """A pipeline in memory, warm. It never changes, so a request that holds it runs wholly on it."""

    def __init__(
        self, artifact: Artifact, definition: Definition, store: ContentStore, cpus: int, partition: str
    ) -> None:
        self.digest = artifact.digest
        self.definition = definition
        self.since = int(time.time() * 1000)
        models = {entry.version: _load(entry, artifact, store, cpus) for entry in definition.models}
        entries = {entry.version: entry for entry in definition.models}
        signatures = {version: _signature(entries[version], model) for version, model in models.items()}
        connections.check(definition.parts, signatures)
        for model in models.values():
            model.warm()
        named = steps.labels(definition.parts)
        batching = {version: entries[version].batching for version in models}
        alone = {
            version: Node(named[version], model, signatures[version], model.run, limits.max_rows if limits else 1)
            for (version, model), limits in zip(models.items(), batching.values(), strict=True)
        }
        meeting = {
            version: replace(node, run=Batcher(node.run, limits).run) if (limits := batching[version]) else node
            for version, node in alone.items()
        }
        self._models = models
        self._parts, self._meeting = _loaded_parts(definition, alone), _loaded_parts(definition, meeting)
        self.facts = _facts(definition, entries, partition)
        # Requests run together (opsengine.batching): all that were let in must then be able to meet.
        self.gathers = any(batching.values())
        self._recorded = sum(len(part.recorded) for part in definition.parts if isinstance(part, Stage))
        self._first = next(part for part in self._parts if isinstance(part, LoadedStage))
        # Validations compare whole columns, and what callers send beside the model's inputs may be of any type.
        self._reads_values = any(isinstance(part, Checks) for part in self._parts)
        # What a Python step did in a millisecond a thousand times may hang the next time.
        self.is_steady = all(entry.runtime != "python" for entry in definition.models)
        self.is_on_cpu = not any(providers.wants(entry.accel) for entry in definition.models)

    def down(self) -> dict[str, str]:
        """Versions of the models that cannot answer now, and why: Python steps whose process ended."""
        return {version: fault for version, model in self._models.items() if (fault := model.fault)}

    def answer(self, batch: Batch, began: int, *, meets: bool = False, shares: tuple[int, ...] = ()) -> Result:
        """Run the pipeline on a request that began at `began` (perf_counter_ns). Raises RequestError.

        With `meets`, models with batching wait for callers in other threads, as long as their limits say. `shares`:
        the rows are of several requests, so many of each; models without batching then run for each alone.
        Recorded inputs are what the model sees: its number type, in the shape that was sent. `sent` are those of JSON.
        """
        count, request = batch.count, batch.columns
        inputs: dict[str, Field] | None = None
        outputs: dict[str, Field] = {}
        recorded: dict[str, dict[str, Field]] = {}
        checks: dict[str, Array] = {}
        arms: Array | None = None
        elapsed = [time.perf_counter_ns() - began]
        for part in self._meeting if meets else self._parts:
            start = time.perf_counter_ns()
            if isinstance(part, Checks):
                known = inputs if inputs is not None else request
                checks |= validations.evaluate(part.rules, _readable(known, outputs, recorded), count)
            else:
                ran = part.run(request if inputs is None else outputs, request, count, shares)
                if inputs is None:
                    inputs = {**request, **ran.prepared}
                outputs, arms = ran.outputs, ran.arms
                recorded |= ran.recorded
            elapsed.append(time.perf_counter_ns() - start)
        if arms is not None:
            split: Field = [[self.facts.arms[place].described] for place in arms.tolist()]
            outputs = {**outputs, "_model_split": split}
        now, times = int(time.time() * 1000), tuple(elapsed)
        if shares:
            times = tuple(spent // len(shares) for spent in times)  # each is told an even share
        made = inputs or request
        return Result(self.facts, now, count, made, outputs, times, checks, recorded, arms, (), shares, batch.sent)

    def answer_together(self, batch: Batch, began: int, shares: tuple[int, ...]) -> Result | None:
        """Run the rows of several requests, `shares` of each; None where each has to run alone. Raises RequestError."""
        if self._reads_values and not self._first.reads_all(batch.columns):
            return None
        result = self.answer(batch, began, shares=shares)
        # A shadow that failed on the rows of one is not to be missing in the answers to all.
        return result if len(result.recorded) == self._recorded and gathering.is_as_alone(result) else None


def _readable(
    inputs: Mapping[str, Field], outputs: Mapping[str, Field], recorded: Mapping[str, Mapping[str, Field]]
) -> dict[str, Field]:
    columns = {f"in.{name}": value for name, value in inputs.items()}
    columns |= {f"out.{name}": value for name, value in outputs.items()}
    for label, made in recorded.items():
        columns |= {f"out_{label}.{name}": value for name, value in made.items()}
    return columns


def _loaded_parts(definition: Definition, nodes: Mapping[str, Node]) -> tuple[LoadedStage | Checks, ...]:
    stages = [part for part in definition.parts if isinstance(part, Stage)]
    keys = frozenset(stage.split.key for stage in stages if stage.split and stage.split.key)
    return tuple(
        part
        if isinstance(part, Checks)
        else LoadedStage(part, tuple(nodes[model.version] for model in part.models), keys, is_first=part is stages[0])
        for part in definition.parts
    )


def _facts(definition: Definition, entries: Mapping[str, ModelEntry], partition: str) -> Facts:
    last = [part for part in definition.parts if isinstance(part, Stage)][-1]
    arms = tuple(_answering(entries[model.version]) for model in last.models) if last.split else ()
    one = _answering(entries[last.models[last.answers].version])
    return Facts(definition.pipeline, definition.version, one.last_model, one.name, one.version, partition, arms)


def _answering(entry: ModelEntry) -> Answering:
    return Answering(
        orjson.dumps({"model_name": entry.name, "model_sha": entry.sha}).decode(),
        entry.name,
        entry.version,
        orjson.dumps({"name": entry.name, "version": entry.version, "sha": entry.sha}).decode(),
    )


def _load(entry: ModelEntry, artifact: Artifact, store: ContentStore, cpus: int) -> Model:
    if entry.digest not in artifact.layers:
        raise PipelineError(f"The artifact lacks the file of model {entry.name}: publish the pipeline again.")
    path = store.path(entry.digest)
    return (
        PythonModel(path, entry.name, store.unpacked)
        if entry.runtime == "python"
        else OnnxModel(path, entry.name, cpus, entry.accel)
    )


def _signature(entry: ModelEntry, model: Model) -> Signature:
    if entry.batching and any(node.batch for node in model.inputs):
        raise PipelineError(
            f"Model {entry.name} takes a fixed number of rows at a time, so it cannot be batched: take batching out."
        )
    return Signature(
        entry.name,
        tuple(Tensor(node.name, _type(node.dtype), node.shape) for node in model.inputs),
        tuple(Tensor(node.name, _type(node.dtype), node.shape) for node in model.outputs),
        entry.tensor_fields,
    )


def _type(dtype: np.dtype[np.generic]) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def load(digest: str, store: ContentStore, cpus: int, partition: str) -> LoadedPipeline:
    """Load a pulled pipeline from the local store and warm it. Raises PipelineError or RegistryError."""
    try:
        artifact = read_manifest(digest, store.read(digest))
        found = definition.read(store.read(artifact.config.digest))
    except OSError as error:
        raise RegistryError(f"The local copy of {digest} is not complete: {error.strerror}.") from error
    return LoadedPipeline(artifact, found, store, cpus, partition)
