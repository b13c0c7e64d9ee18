"""The Helm chart of a publish: the files in `chart/` with a version's values baked in, as an OCI Helm artifact. Pure.

The files are a real chart; only `Chart.yaml` and single lines of `values.yaml` are written here, so nothing templates
a template. Building it twice gives the same bytes.
"""

import functools
import io
import json
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from publishing.engine_config import GPUS, KUBERNETES_ARCH, Needs
from publishing.oci import blobs, manifests
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package
from publishing.scaling import DEFAULT_PERCENT, Autoscale

CONFIG_TYPE = "application/vnd.cncf.helm.config.v1+json"
CONTENT_TYPE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
SOURCE = Path(__file__).parent / "chart"


@dataclass(frozen=True)
class ChartContent:
    """What a chart installs.

    `engine_url` is empty when no engine image is configured; `image_url` when there is no image that holds both.
    """

    pipeline: str
    version: str
    created_at: datetime
    registry: str
    plain_http: bool
    pipeline_url: str
    engine_url: str
    needs: Needs
    image_url: str = ""

    @property
    def chart_version(self) -> str:
        """A SemVer pre-release, so that only the exact version is ever installed."""
        return f"0.0.1-{self.version}"


def build(content: ChartContent, repository: str) -> Package:
    """The chart, to be pushed to `<repository>/charts/<pipeline>:0.0.1-<version>`."""
    metadata = _metadata(content)
    config = blobs.of_bytes(json.dumps(metadata, sort_keys=True).encode(), CONFIG_TYPE, "the chart's config")
    layer = blobs.of_bytes(archive(content), CONTENT_TYPE, "the chart")
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "annotations": {
            "org.opencontainers.image.created": content.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "org.opencontainers.image.description": metadata["description"],
            "org.opencontainers.image.title": content.pipeline,
            "org.opencontainers.image.version": content.chart_version,
        },
    }
    return Package(
        f"{repository}/charts/{content.pipeline}",
        content.chart_version,
        Manifest(json.dumps(manifest, sort_keys=True).encode(), manifests.IMAGE),
        (config, layer),
    )


def archive(content: ChartContent) -> bytes:
    """The chart as `helm package` makes it: a .tgz of one folder with the chart's name."""
    files = _sources() | {"Chart.yaml": _yaml(_metadata(content)), "values.yaml": _values(content)}
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            data = files[name].encode()
            entry = tarfile.TarInfo(f"{content.pipeline}/{name}")
            entry.size, entry.mode = len(data), 0o644  # owner and time stay 0
            tar.addfile(entry, io.BytesIO(data))
    return _gzip(found.getvalue())


@functools.cache
def _sources() -> dict[str, str]:
    return {str(path.relative_to(SOURCE)): path.read_text("utf-8") for path in SOURCE.rglob("*") if path.is_file()}


def _metadata(content: ChartContent) -> dict[str, str]:
    return {
        "apiVersion": "v2",
        "name": content.pipeline,
        "version": content.chart_version,
        "appVersion": content.version,
        "description": f"The pipeline {content.pipeline} with the engine that serves it.",
        "type": "application",
    }


def _values(content: ChartContent) -> str:
    needs = content.needs
    limits: dict[str, Any] = {"cpu": needs.cpu, "memory": needs.memory}
    if needs.gpu:
        limits[GPUS] = needs.gpus or 1
    text = _sources()["values.yaml"]
    for key, value in (
        ("pipelineUrl", content.pipeline_url),
        ("image", content.image_url or content.engine_url),
        ("pipelineInImage", bool(content.image_url)),
        ("  registry", content.registry),
        ("  plainHttp", content.plain_http),
        ("  cpus", needs.cpu),
        ("resources", {"limits": limits, "requests": {"cpu": needs.cpu_request, "memory": needs.memory_request}}),
        ("replicas", needs.replicas),
        ("autoscaling", _autoscaling(needs)),
        ("nodeSelector", {"kubernetes.io/arch": KUBERNETES_ARCH[needs.arch], **dict(needs.node_selector)}),
    ):
        text = _set(text, key, value)
    return text


def _autoscaling(needs: Needs) -> dict[str, Any]:
    found = needs.autoscale or Autoscale(1, 1, DEFAULT_PERCENT)
    return {
        "enabled": needs.autoscale is not None,
        "minReplicas": found.least,
        "maxReplicas": found.most,
        "targetCPUUtilizationPercentage": found.percent,
    }


def _set(text: str, key: str, value: object) -> str:
    """The values file with another value on a key's line; JSON is YAML too."""
    line = f"{key}: {json.dumps(value, ensure_ascii=False)}"
    changed, times = re.subn(rf"^{key}: .*$", lambda _: line, text, flags=re.MULTILINE)
    if times != 1:
        raise ValueError(f"values.yaml has {times} lines of {key!r}, not one")
    return changed


def _yaml(values: dict[str, str]) -> str:
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _gzip(data: bytes) -> bytes:
    """RFC 1952 with stored blocks: what a compressor writes differs between its versions, and so would the digest."""
    pieces = [data[start : start + 0xFFFF] for start in range(0, len(data), 0xFFFF)]
    blocks = b"".join(
        struct.pack("<BHH", number == len(pieces), len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces, start=1)
    )
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no system
    return header + blocks + struct.pack("<II", zlib.crc32(data), len(data))
