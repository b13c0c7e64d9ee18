"""What a published pipeline is made of (CycloneDX) and where it came from (SLSA provenance). Pure.

Both are made from the version and the publish alone, so building them again gives the same bytes.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from publishing.artifact import ModelFile, PipelineContent

SBOM_TYPE = "application/vnd.cyclonedx+json"
CYCLONEDX = "https://cyclonedx.org/bom"  # in-toto predicate type, as cosign's --type cyclonedx
PROVENANCE = "https://slsa.dev/provenance/v1"  # cosign's --type slsaprovenance1
BUILD_TYPE = "urn:opscenter:publish:v1"


@dataclass(frozen=True)
class Origin:
    """Who published what, where and when. `center` is the public address, `requested_by` a user's public id."""

    center: str
    center_version: str
    publish: int
    workspace: str
    requested_by: str
    requested_at: datetime
    engine_config: Mapping[str, Any]


@dataclass(frozen=True)
class Engine:
    """The engine image that the publish names; `digest` is empty where it is not known."""

    reference: str
    digest: str = ""


def bill_of_materials(
    content: PipelineContent, digest: str, engine: Engine | None, center_version: str, kind: str = "application"
) -> dict[str, Any]:
    """CycloneDX 1.6 of what has this digest, the artifact or a `container`: models with hashes, the engine image."""
    parts = [_model(model) for model in content.models] + ([_engine(engine)] if engine else [])
    reference = f"{content.name}@{content.version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Of what is listed, so that the same list has the same number and another one another.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest + (engine.reference if engine else ''))}",
        "version": 1,
        "metadata": {
            "timestamp": _time(content.created_at),
            "tools": {"components": [{"type": "application", "name": "OpsCenter", "version": center_version}]},
            "component": {
                "type": kind,
                "bom-ref": reference,
                "name": content.name,
                "version": content.version,
                "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": reference, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def provenance(content: PipelineContent, origin: Origin, engine: Engine | None) -> dict[str, Any]:
    """The SLSA v1 predicate: which version with which models, published by whom, when, by which center."""
    dependencies = [
        {"name": f"{model.name}@{model.version}", "digest": {"sha256": model.sha256}} for model in content.models
    ]
    if engine and engine.digest:
        dependencies.append({"uri": engine.reference, "digest": {"sha256": engine.digest.removeprefix("sha256:")}})
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "workspace": origin.workspace,
                "pipeline": content.name,
                "version": content.version,
                "engine_config": dict(origin.engine_config),
            },
            "internalParameters": {"requestedBy": origin.requested_by},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": origin.center, "version": {"opscenter": origin.center_version}},
            "metadata": {
                "invocationId": f"{origin.center}/api/v1/publishes/{origin.publish}",
                "startedOn": _time(origin.requested_at),
            },
        },
    }


def _model(model: ModelFile) -> dict[str, Any]:
    named = {"framework": model.framework, "arch": model.arch, "accel": model.accel}
    properties = {**named, "size": str(model.size), "file": model.file_name}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}@{model.version}",
        "name": model.name,
        "version": model.version,
        "hashes": [{"alg": "SHA-256", "content": model.sha256}],
        "properties": [{"name": f"opscenter:{key}", "value": value} for key, value in properties.items()],
    }


def _engine(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "container",
        "bom-ref": f"engine:{engine.reference}",
        "name": engine.reference,
    }
    if engine.digest:
        found["version"] = engine.digest
        found["hashes"] = [{"alg": "SHA-256", "content": engine.digest.removeprefix("sha256:")}]
    return found


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
