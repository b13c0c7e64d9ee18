"""What the registry doctor writes: of fixed content, so that nothing piles up where a registry deletes nothing."""

import json
from typing import Any

from publishing.oci import content, manifests
from publishing.oci.content import Blob
from publishing.oci.manifests import Manifest
from publishing.oci.plan import MIB

NAME = "doctor"
# Larger than GHCR's limit of a PATCH and than nginx's default of a body.
BODY = b"OpsCenter registry doctor.\n".ljust(4096, b".") * (5 * MIB // 4096)
EMPTY = content.of_bytes(b"{}", "application/vnd.oci.empty.v1+json", "the empty config")
SMALL = content.of_bytes(b"OpsCenter registry doctor\n", "application/octet-stream", "a tiny blob")
LARGE = content.of_bytes(BODY, "application/octet-stream", "a blob of 5 MiB")
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
PLAIN = "application/vnd.opscenter.doctor.v1+json"
NOTE = "application/vnd.opscenter.doctor.note.v1+json"
# The empty config's bytes, called a chart's.
HELM_CONFIG = Blob(EMPTY.digest, EMPTY.size, "application/vnd.cncf.helm.config.v1+json", EMPTY.title, EMPTY.open)


def manifest(config: Blob, artifact_type: str = "", subject: dict[str, Any] | None = None) -> Manifest:
    """One with the tiny blob as its only layer."""
    told: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "config": config.descriptor(),
        "layers": [SMALL.descriptor()],
    }
    told |= {"artifactType": artifact_type} if artifact_type else {}
    told |= {"subject": subject} if subject else {}
    return Manifest(json.dumps(told, sort_keys=True).encode(), manifests.IMAGE)


def index_of(entry: Manifest) -> Manifest:
    """An index of one manifest."""
    told = {"schemaVersion": 2, "mediaType": manifests.INDEX, "manifests": [descriptor(entry)]}
    return Manifest(json.dumps(told, sort_keys=True).encode(), manifests.INDEX)


def descriptor(of: Manifest) -> dict[str, Any]:
    """How an index or a subject names it."""
    return {"mediaType": manifests.IMAGE, "digest": of.digest, "size": len(of.content)}
