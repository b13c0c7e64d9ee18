"""The pipeline artifact: a ModelPack manifest of one `pipeline.json` and the model files as they were uploaded. Pure.

A golden request that goes with the version is one more layer, `golden.json`.

Everything is made from the version alone, so the same version has the same digest, whoever builds it and when. The
shape is `contract/artifact.manifest.json`; media types and the config's members are the CNCF model-spec's, v1.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from publishing.oci import blobs, manifests
from publishing.oci.blobs import Blob
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
PIPELINE_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DATASET_TYPE = "application/vnd.cncf.model.dataset.v1.raw"
FILE_PATH = "org.cncf.model.filepath"

FORMAT = 1  # of pipeline.json
MINIMUM_ENGINE = "0.1.0"  # the first engine that understands what is written here


@dataclass(frozen=True)
class ModelFile:
    """A model version of the pipeline. `open` answers its stored bytes; `tensor_fields` is its config's."""

    name: str
    version: str
    sha256: str
    size: int
    file_name: str
    framework: str
    arch: str
    accel: str
    tensor_fields: list[str] | None
    batching: dict[str, int] | None
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class PipelineContent:
    """A pipeline version with everything in it. `golden` is its golden.json, empty for none."""

    name: str
    version: str
    created_at: datetime
    definition: Mapping[str, Any]
    models: tuple[ModelFile, ...]
    golden: str = ""


def build(content: PipelineContent, repository: str) -> Package:
    """The artifact of a version, to be pushed to `<repository>/pipelines/<name>:<version>`."""
    layers = (_pipeline_layer(content), *(_weight_layer(model) for model in content.models), *_golden_layer(content))
    config = blobs.of_bytes(_json(_config(content, layers)), CONFIG_TYPE, "the artifact's config")
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "artifactType": ARTIFACT_TYPE,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
        "annotations": {
            "org.opencontainers.image.created": _time(content.created_at),
            "org.opencontainers.image.title": content.name,
            "org.opencontainers.image.version": content.version,
        },
    }
    return Package(
        f"{repository}/pipelines/{content.name}",
        content.version,
        Manifest(_json(manifest), manifests.IMAGE),
        (config, *layers),
    )


def pipeline_json(content: PipelineContent) -> dict[str, Any]:
    """What an engine reads first (`contract/pipeline.json`)."""
    return {
        "format": FORMAT,
        "pipeline": {"name": content.name, "version": content.version},
        "definition": dict(content.definition),
        "models": [_model(model) for model in content.models],
        "engine": {"minimum": MINIMUM_ENGINE},
    }


def _pipeline_layer(content: PipelineContent) -> Blob:
    annotations = {FILE_PATH: "pipeline.json"}
    return blobs.of_bytes(_json(pipeline_json(content)), PIPELINE_TYPE, "pipeline.json", annotations)


def _golden_layer(content: PipelineContent) -> tuple[Blob, ...]:
    """None where there is none: the digest of what was published without stays."""
    if not content.golden:
        return ()
    annotations = {FILE_PATH: "golden.json"}
    return (blobs.of_bytes(content.golden.encode(), DATASET_TYPE, "golden.json", annotations),)


def _weight_layer(model: ModelFile) -> Blob:
    # Only the last part of the name: a path would be followed by whoever unpacks the artifact.
    file_name = PurePosixPath(model.file_name.replace("\\", "/")).name or "model"
    path = f"models/{model.name}/{model.version}/{file_name}"
    return Blob(f"sha256:{model.sha256}", model.size, WEIGHT_TYPE, f"model {model.name}", model.open, {FILE_PATH: path})


def _model(model: ModelFile) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "sha": model.sha256,
        "size": model.size,
        "file_name": model.file_name,
        "framework": model.framework,
        "runtime": model.framework,
        "arch": model.arch,
        "accel": model.accel,
        # Left out where it is not set: the digest of what was published before this key existed stays.
        "config": {"tensor_fields": model.tensor_fields} | ({"batching": model.batching} if model.batching else {}),
        "inputs": model.inputs,
        "outputs": model.outputs,
    }


def _config(content: PipelineContent, layers: tuple[Blob, ...]) -> dict[str, Any]:
    """The model-spec's config. It has no place for keys of our own: they are in `pipeline.json`."""
    formats = sorted({model.framework for model in content.models})
    return {
        "descriptor": {"createdAt": _time(content.created_at), "name": content.name, "version": content.version},
        "config": {"format": ",".join(formats)},
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},  # raw, so never compressed
    }


def _json(value: object) -> bytes:
    """One form only: a database may give an object's keys back in another order."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
