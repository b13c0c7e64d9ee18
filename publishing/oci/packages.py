"""A package: a manifest with all its blobs, pushed as one."""

from collections.abc import Mapping
from dataclasses import dataclass

from publishing.oci import blobs, manifests
from publishing.oci.client import Client
from publishing.oci.content import Blob, Progress
from publishing.oci.manifests import Manifest


@dataclass(frozen=True)
class Package:
    """What is pushed to one repository under one tag."""

    repository: str
    tag: str
    manifest: Manifest
    blobs: tuple[Blob, ...]

    @property
    def size(self) -> int:
        """Bytes of all blobs, each digest counted once."""
        return sum({blob.digest: blob.size for blob in self.blobs}.values())


def push(client: Client, package: Package, progress: Progress, sources: Mapping[str, str] | None = None) -> None:
    """Blobs first, the manifest last: what a tag names is always whole. See `blobs.push_all`."""
    blobs.push_all(client, package.repository, package.blobs, progress, sources)
    manifests.put(client, package.repository, package.tag, package.manifest)
