"""Images, of one platform or an index of several: read, and copied from registry to registry without a disk."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import urllib3.exceptions

from publishing.oci import auth, blobs, manifests
from publishing.oci.client import Call, Client
from publishing.oci.content import Blob, Progress
from publishing.oci.faults import RegistryFault
from publishing.oci.manifests import Manifest
from publishing.oci.transport import PIECE

INDEXES = frozenset({manifests.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})
IMAGES = frozenset({manifests.IMAGE, "application/vnd.docker.distribution.manifest.v2+json"})
MOST_IMAGES = 100  # of one index, attestations among them
MOST_CONFIG = 8 * 1024 * 1024


@dataclass(frozen=True)
class Image:
    """One platform's manifest. `entry` is its line in the index, None where there is no index."""

    manifest: Manifest
    blobs: tuple[Blob, ...]
    entry: Mapping[str, Any] | None = None

    @property
    def platform(self) -> str:
        """`linux/amd64`, `linux/arm/v7`; empty where there is no index to tell."""
        found = (self.entry or {}).get("platform") or {}
        return "/".join(str(found[key]) for key in ("os", "architecture", "variant") if found.get(key))

    @property
    def is_runnable(self) -> bool:
        """Not one of the attestations that buildx puts into an index."""
        return self.entry is None or not self.platform.startswith("unknown")


@dataclass(frozen=True)
class ImageTree:
    """What a reference names. `top` is the index, or the only image's manifest."""

    top: Manifest
    images: tuple[Image, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every blob once."""
        return tuple({blob.digest: blob for image in self.images for blob in image.blobs}.values())

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


def read(client: Client, repository: str, reference: str, platforms: Sequence[str] = ()) -> ImageTree:
    """An image or index and the manifests in it; blobs are opened when they are sent.

    With `platforms` (such as `linux/amd64`) an index is narrowed to them, which gives it another digest. Raises
    `RegistryFault`, also for a platform that is not there, `Unavailable`.
    """
    top = manifests.get(client, repository, reference)
    told = _told(top, reference)
    if "manifests" not in told:
        return ImageTree(top, (_image(client, repository, top, told, None),))
    entries = told["manifests"][: MOST_IMAGES + 1]
    if len(entries) > MOST_IMAGES:
        raise RegistryFault(f"{repository}:{reference} is an index of more than {MOST_IMAGES} images.")
    images = [_member(client, repository, entry) for entry in entries]
    tree = ImageTree(top, tuple(images))
    return _narrowed(tree, told, platforms) if platforms else tree


def copy(
    client: Client,
    repository: str,
    tag: str,
    tree: ImageTree,
    progress: Progress,
    mount_from: str | None = None,
) -> None:
    """Makes sure that a repository has an image under a tag: blobs first, the top last.

    `mount_from` names a repository of the same registry that has the blobs. Raises `RegistryFault`, `Unavailable`.
    """
    if manifests.head(client, repository, tag) == tree.top.digest:
        progress(tree.size)
        return
    sources = {blob.digest: mount_from for blob in tree.blobs} if mount_from else {}
    blobs.push_all(client, repository, tree.blobs, progress, sources)
    for image in tree.images:
        if image.entry is not None:
            manifests.put(client, repository, image.manifest.digest, image.manifest)
    manifests.put(client, repository, tag, tree.top)


def content(client: Client, repository: str, blob: Blob, most: int = MOST_CONFIG) -> bytes:
    """A small blob such as an image's config, checked against its digest. Raises `RegistryFault`, `Unavailable`."""
    if blob.size > most:
        raise RegistryFault(f"{blob.title} has {blob.size} bytes, more than {most}.")
    return client.retry(lambda: b"".join(blobs.download(client, repository, blob.digest)))


def index_of(entries: Iterable[Mapping[str, Any]], annotations: Mapping[str, str] | None = None) -> Manifest:
    """An OCI index of these entries."""
    told: dict[str, Any] = {"schemaVersion": 2, "mediaType": manifests.INDEX, "manifests": list(entries)}
    if annotations:
        told["annotations"] = dict(annotations)
    return Manifest(json.dumps(told, sort_keys=True).encode(), manifests.INDEX)


def _member(client: Client, repository: str, entry: Mapping[str, Any]) -> Image:
    manifest = manifests.get(client, repository, str(entry.get("digest")))
    return _image(client, repository, manifest, _told(manifest, manifest.digest), entry)


def _image(
    client: Client, repository: str, manifest: Manifest, told: Mapping[str, Any], entry: Mapping[str, Any] | None
) -> Image:
    try:
        parts = [("config", told["config"]), *(("a layer", layer) for layer in told["layers"])]
        return Image(manifest, tuple(_blob(client, repository, title, part) for title, part in parts), entry)
    except (KeyError, TypeError, ValueError) as exc:
        raise RegistryFault(f"{repository}@{manifest.digest} is no image that can be copied.") from exc


def _blob(client: Client, repository: str, title: str, part: Mapping[str, Any]) -> Blob:
    digest, size = str(part["digest"]), int(part["size"])
    if not digest.startswith("sha256:"):
        raise ValueError(digest)
    named = f"the engine image's config {digest[:19]}" if title == "config" else f"an engine layer {digest[:19]}"
    return Blob(digest, size, str(part["mediaType"]), named, partial(RemoteBlob, client, repository, digest, size))


def _narrowed(tree: ImageTree, told: Mapping[str, Any], platforms: Sequence[str]) -> ImageTree:
    kept = tuple(image for image in tree.images if image.platform in platforms)
    absent = sorted(set(platforms) - {image.platform for image in kept})
    if absent:
        there = ", ".join(sorted({image.platform for image in tree.images if image.is_runnable}))
        raise RegistryFault(f"it has no image for {', '.join(absent)}, only for {there}")
    return ImageTree(index_of((image.entry or {} for image in kept), told.get("annotations")), kept)


def _told(manifest: Manifest, reference: str) -> dict[str, Any]:
    try:
        told = json.loads(manifest.content)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("mediaType", manifest.media_type) not in INDEXES | IMAGES:
        raise RegistryFault(f"{reference} is no image: its manifest is of a type that cannot be copied.")
    return told


class RemoteBlob:
    """A blob in a registry, read as it arrives; it ends in a fault of that registry unless it is what its digest says.

    Its faults name the registry that it is read from, not the one that it is sent to.
    """

    def __init__(self, client: Client, repository: str, digest: str, size: int) -> None:
        self._client, self._repository, self._digest, self._size = client, repository, digest, size
        self._first = self._at = 0
        self._found = hashlib.sha256()
        self._stack = ExitStack()
        self._response: Any = None

    def seek(self, offset: int, /) -> int:
        """Begins there; by Range where the registry has it, else what is before is read and thrown away."""
        self._first = self._at = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. Raises `RegistryFault`, `Unavailable`."""
        if self._response is None:
            self._open()
        piece = self._next(None if size < 0 else size)
        self._at += len(piece)
        if self._first == 0:
            self._found.update(piece)
        if not piece and self._at < self._size:
            raise self._fault(f"{self._at} of the {self._size} bytes of")
        # Checked before the last piece is given away, so that nothing wrong arrives whole anywhere.
        is_whole = self._first == 0 and self._at >= self._size
        if is_whole and f"sha256:{self._found.hexdigest()}" != self._digest:
            raise self._fault("other bytes than those of")
        return piece

    def close(self) -> None:
        """Gives the connection back or breaks it."""
        if self._response is not None:
            self._response.close()
        self._stack.close()

    def _open(self) -> None:
        call = Call(
            "GET",
            f"/v2/{self._repository}/blobs/{self._digest}",
            f"the read of {self._digest[:19]}",
            self._repository,
            (auth.pull_scope(self._repository),),
            headers={"Range": f"bytes={self._first}-"} if self._first else {},
            expected=frozenset({200, 206}),
        )
        self._response = self._stack.enter_context(self._client.stream(call))
        left = self._first if self._response.status == 200 else 0
        while left:
            piece = self._next(min(left, PIECE))
            if not piece:
                raise self._fault(f"{self._first - left} of the {self._size} bytes of")
            left -= len(piece)

    def _next(self, size: int | None) -> bytes:
        try:
            piece: bytes = self._response.read(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise self._client.broken(exc, f"the read of {self._digest[:19]}") from exc
        return piece

    def _fault(self, what: str) -> RegistryFault:
        return RegistryFault(
            f"{self._client.registry.host} sent {what} {self._digest[:19]} in {self._repository}: push it there again."
        )
