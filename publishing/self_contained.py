"""One image that holds engine and pipeline, composed of what registries have: no daemon, no disk, constant memory.

The engine's layers stay as they are; one uncompressed tar layer with the artifact's files comes on top, and the
config tells the engine where they are (`PIPELINE_DIR`). Same version and engine, same digest.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from publishing.oci import content, images, manifests
from publishing.oci.content import Blob, Source
from publishing.oci.faults import RegistryFault
from publishing.oci.images import Image, ImageTree
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
FOLDER = "pipeline"
LAYOUT = 1  # of the layer: another one has another digest
HASH_PIECE = 1024 * 1024
_BLOCK = 512  # of tar
_END = bytes(_BLOCK * 20)  # tar's usual record: two empty blocks and what fills it up
_OCI = {
    "application/vnd.docker.image.rootfs.diff.tar": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{LAYER}+zstd",
}


@dataclass(frozen=True)
class _Part:
    """A stretch of the layer."""

    size: int
    open: Callable[[], Source]


@dataclass(frozen=True)
class Naming:
    """What the image tells of itself."""

    pipeline: str
    version: str
    created_at: datetime
    pipeline_url: str


@dataclass(frozen=True)
class Layer:
    """The tar with the artifact's files, which is never on a disk."""

    parts: tuple[_Part, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(part.size for part in self.parts)

    def open(self) -> Source:
        """Its bytes."""
        return Strung(self.parts)

    def digest(self, progress: Callable[[int], None]) -> str:
        """`sha256:…`, by reading all of it once; `progress` is told 0 now and then and may raise to stop."""
        found = hashlib.sha256()
        source = self.open()
        try:
            while piece := source.read(HASH_PIECE):
                found.update(piece)
                progress(0)
        finally:
            source.close()
        return f"sha256:{found.hexdigest()}"

    def blob(self, digest: str) -> Blob:
        """As something that can be pushed."""
        return Blob(digest, self.size, LAYER, "the layer with the models", self.open)


class Strung:
    """Several sources as one."""

    def __init__(self, parts: Iterable[_Part]) -> None:
        self._parts = list(parts)
        self._source: Source | None = None
        self._left = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, never across the border of two parts. Raises `RegistryFault` where a part is too short."""
        while not self._left:
            self.close()
            if not self._parts:
                return b""
            part = self._parts.pop(0)
            self._source, self._left = part.open(), part.size
        assert self._source is not None
        piece = self._source.read(self._left if size < 0 else min(size, self._left))
        if not piece:
            raise RegistryFault("A stored model file is shorter than it was when it was uploaded: upload it again.")
        self._left -= len(piece)
        return piece

    def seek(self, offset: int, /) -> int:
        """Begins at an offset; only before the first read."""
        left = offset
        while self._parts and left >= self._parts[0].size:
            left -= self._parts.pop(0).size
        if left:
            part = self._parts.pop(0)
            self._source, self._left = part.open(), part.size - left
            self._source.seek(left)
        return offset

    def close(self) -> None:
        """Closes the part that is open."""
        if self._source is not None:
            self._source.close()
            self._source = None


def layer_of(artifact: Package, path_annotation: str) -> Layer:
    """The files of a pipeline artifact in a tar: under `/pipeline` the manifest and every file at its path.

    `/models` leads to the models, where KServe's modelcars look for them.
    """
    parts: list[_Part] = []
    names = {str(PurePosixPath(FOLDER))}
    files = [("manifest.json", content.of_bytes(artifact.manifest.content, "", "manifest.json"))]
    files += [
        (blob.annotations[path_annotation], blob) for blob in artifact.blobs if path_annotation in blob.annotations
    ]
    for path, _blob in files:
        names |= {str(parent) for parent in PurePosixPath(FOLDER, path).parents if parent.name}
    parts += [_bytes(_header(name, kind=tarfile.DIRTYPE, mode=0o755)) for name in sorted(names)]
    for path, blob in sorted(files, key=lambda file: file[0]):
        parts.append(_bytes(_header(f"{FOLDER}/{path}", size=blob.size)))
        parts.append(_Part(blob.size, blob.open))
        if blob.size % _BLOCK:
            parts.append(_bytes(bytes(_BLOCK - blob.size % _BLOCK)))
    parts.append(_bytes(_header("models", kind=tarfile.SYMTYPE, mode=0o777, target=f"{FOLDER}/models")))
    parts.append(_bytes(_END))
    return Layer(tuple(parts))


def compose(engine: ImageTree, configs: Mapping[str, bytes], layer: Blob, naming: Naming) -> ImageTree:
    """The engine's images, each with the layer on top. `configs` has the engine's, by digest.

    Attestations are left out: they are of other images. Raises `RegistryFault`.
    """
    composed = tuple(_composed(image, configs, layer, naming) for image in engine.images if image.is_runnable)
    if engine.images[0].entry is None:
        return ImageTree(composed[0].manifest, composed)
    entries = (image.entry or {} for image in composed)
    return ImageTree(images.index_of(entries, _annotations(naming)), composed)


def config_of(image: Image) -> Blob:
    """The blob that is the image's config."""
    return image.blobs[0]


def _composed(image: Image, configs: Mapping[str, bytes], layer: Blob, naming: Naming) -> Image:
    config = content.of_bytes(_config(configs[config_of(image).digest], layer, naming), CONFIG, "the image's config")
    told = json.loads(image.manifest.content)
    layers = [{**entry, "mediaType": _OCI.get(entry["mediaType"], entry["mediaType"])} for entry in told["layers"]]
    manifest = Manifest(
        _json(
            {
                "schemaVersion": 2,
                "mediaType": manifests.IMAGE,
                "config": config.descriptor(),
                "layers": [*layers, layer.descriptor()],
                "annotations": _annotations(naming),
            }
        ),
        manifests.IMAGE,
    )
    entry = None
    if image.entry is not None:
        entry = {
            "mediaType": manifests.IMAGE,
            "digest": manifest.digest,
            "size": len(manifest.content),
            "platform": image.entry["platform"],
        }
    return Image(manifest, (config, *image.blobs[1:], layer), entry)


def _config(engine: bytes, layer: Blob, naming: Naming) -> bytes:
    try:
        told: dict[str, Any] = json.loads(engine)
        created = naming.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        run = told.setdefault("config", {}) or {}
        kept = [line for line in run.get("Env") or [] if not line.startswith("PIPELINE_DIR=")]
        run["Env"] = [*kept, f"PIPELINE_DIR=/{FOLDER}"]
        run["Labels"] = {**(run.get("Labels") or {}), **_annotations(naming)}
        told |= {"config": run, "created": created}
        told["rootfs"]["diff_ids"].append(layer.digest)  # uncompressed, so the same
        if "history" in told:
            told["history"].append({"created": created, "created_by": f"OpsCenter: pipeline {naming.pipeline}"})
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RegistryFault("The engine image has a config that cannot be read, so nothing can be put on it.") from exc
    return _json(told)


def _annotations(naming: Naming) -> dict[str, str]:
    return {
        "org.opencontainers.image.created": naming.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.title": naming.pipeline,
        "org.opencontainers.image.version": naming.version,
        "opscenter.pipeline": naming.pipeline_url,
    }


def _header(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, target: str = "") -> bytes:
    """One entry's head; owner and time are 0. PAX, since names may be long and files larger than 8 GiB."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.mode, entry.linkname = size, kind, mode, target
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _bytes(data: bytes) -> _Part:
    return _Part(len(data), lambda: io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
