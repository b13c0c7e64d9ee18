"""What the registry must understand of a manifest: its kind, what it refers to, and how it is listed as a referrer.

Sources: OCI image-spec 1.1 (manifest.md, image-index.md), Docker image manifest version 2 schema 2.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from registry.errors import DigestInvalid, ManifestInvalid
from registry.references import Digest

# What a registry must take at least, and what clients read at most (distribution-spec 1.1, "Pushing Manifests").
SIZE_LIMIT = 4 * 1024 * 1024

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_IMAGES = {OCI_MANIFEST, DOCKER_MANIFEST}
_INDEXES = {OCI_INDEX, DOCKER_LIST}
MEDIA_TYPES = _IMAGES | _INDEXES

# Layers fetched from elsewhere, which may be absent: image-spec, "Non-distributable layers"; Docker's foreign layers.
_ABSENT_LAYERS = ("application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign.")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. `blobs` and `children` are what it refers to and a complete repository holds."""

    media_type: str
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: dict[str, Any] = field(default_factory=dict)


def parse(content: bytes, media_type: str) -> Manifest:
    """Read the manifest that was sent as `media_type`. Raises ManifestInvalid with what is wrong in it."""
    if media_type not in MEDIA_TYPES:
        raise ManifestInvalid(
            f"{media_type[:200]!r} is not a manifest type; this registry takes {', '.join(sorted(MEDIA_TYPES))}."
        )
    document = _document(content)
    _check_kind(document, media_type)
    subject = document.get("subject")
    annotations = document.get("annotations")
    if annotations is not None and not isinstance(annotations, dict):
        raise ManifestInvalid("The manifest's annotations are not an object.")
    image = media_type in _IMAGES
    return Manifest(
        media_type=media_type,
        blobs=_blobs(document) if image else (),
        children=() if image else tuple(_digest(entry, "manifests") for entry in _list(document, "manifests")),
        subject=None if subject is None else _digest(subject, "subject"),
        artifact_type=_artifact_type(document),
        annotations=annotations or {},
    )


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid("The manifest is not JSON.") from error
    if not isinstance(document, dict):
        raise ManifestInvalid("The manifest is not a JSON object.")
    return document


def _check_kind(document: dict[str, Any], media_type: str) -> None:
    if document.get("schemaVersion") != 2:
        raise ManifestInvalid("The manifest's schemaVersion is not 2.")
    # The field is optional in OCI documents, but where it stands it must say what the header says: a document that is
    # an image to one reader and an index to another would make one digest mean two things (CVE-2021-41190).
    stated = document.get("mediaType", media_type)
    if stated != media_type:
        raise ManifestInvalid(f"The manifest's mediaType is {str(stated)[:200]!r}, but it was sent as {media_type!r}.")
    foreign = {"manifests"} if media_type in _IMAGES else {"config", "layers"}
    if found := sorted(foreign & document.keys()):
        raise ManifestInvalid(f"A {media_type} has no {' or '.join(found)}.")


def _blobs(document: dict[str, Any]) -> tuple[Digest, ...]:
    config = _digest(document.get("config"), "config")
    present = (layer for layer in _list(document, "layers") if not _is_absent(layer))
    return tuple(_unique([config, *(_digest(layer, "layers") for layer in present)]))


def _unique(digests: Iterable[Digest]) -> Iterable[Digest]:
    return dict.fromkeys(digests)


def _is_absent(layer: Any) -> bool:
    return isinstance(layer, dict) and str(layer.get("mediaType", "")).startswith(_ABSENT_LAYERS)


def _list(document: dict[str, Any], key: str) -> list[Any]:
    # Go writes an empty list of a missing value as null; image-spec requires the key, old artifacts leave `layers` out.
    entries = document.get(key)
    if entries is None and key == "layers":
        return []
    if not isinstance(entries, list):
        raise ManifestInvalid(f"The manifest has no list {key}.")
    return entries


def _digest(descriptor: Any, where: str) -> Digest:
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        raise ManifestInvalid(f"The manifest has no digest in {where}.")
    try:
        return Digest.parse(descriptor["digest"])
    except DigestInvalid as error:
        raise ManifestInvalid(f"In the manifest's {where}: {error.message}") from error


def _artifact_type(document: dict[str, Any]) -> str:
    """The type by which referrers are listed: the config's where there is no artifactType ("Listing Referrers")."""
    stated = document.get("artifactType") or (document.get("config") or {}).get("mediaType") or ""
    return stated if isinstance(stated, str) else ""
