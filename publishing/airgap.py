"""A publish in one file, out of one registry and into another with the same digests: for sites without a network.

The file is an OCI layout (`oci.layout`). Its index names each manifest twice: for other clients by
`org.opencontainers.image.ref.name` (`pipeline`, `chart`, `engine`, `pipeline.sig` …), for an import by the repository
and tag that it has below the registry's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from publishing import signing
from publishing.oci import blobs, layout, manifests, packages, referrers
from publishing.oci.client import Client
from publishing.oci.content import Blob, Progress
from publishing.oci.layout import BadLayout, Entry, Layout
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package
from publishing.oci.referrers import Subject

NAME = "org.opencontainers.image.ref.name"
REPOSITORY = "io.opscenter.repository"  # below the one that the registry settings name
TAG = "io.opscenter.tag"
PUBLISH = "io.opscenter.publish"  # of the index: what the publish was, for the commands that run it
MOST_DEPTH = 3  # an index of indexes of images is the deepest that is of use
MOST_MANIFESTS = 10_000

_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Part:
    """One thing of a publish in the registry: `repository` is below the configured one."""

    name: str
    repository: str
    tag: str
    digest: str


@dataclass
class _Gathered:
    """What the file will have: descriptors for its index, and entries by digest."""

    listed: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)


def export(client: Client, base: str, parts: list[Part], about: Mapping[str, Any], file: BinaryIO) -> int:
    """Writes parts with their signatures and whatever refers to them; answers how many bytes of blobs.

    `base` is the configured repository. Raises `RegistryFault`, `Unavailable`, `OSError`.
    """
    gathered = _Gathered()
    for part in parts:
        repository = f"{base}/{part.repository}"
        content = manifests.get(client, repository, part.digest)
        _list(gathered, part.name, part.repository, part.tag, content)
        _gather(client, repository, content, gathered, MOST_DEPTH)
        _gather_signatures(client, base, part, gathered)
        _gather_referrers(client, base, part, content, gathered)
    index = {
        "schemaVersion": 2,
        "mediaType": referrers.INDEX,
        "manifests": gathered.listed,
        "annotations": {PUBLISH: layout.packed(about).decode()},
    }
    layout.write(file, index, gathered.entries)
    return sum(entry.size for entry in gathered.entries.values())


def about_of(found: Layout) -> dict[str, Any]:
    """What the exported publish was. Raises `BadLayout` for a layout that is not of an export."""
    annotations = found.index.get("annotations")
    try:
        about = json.loads(annotations[PUBLISH]) if isinstance(annotations, dict) else None
    except (KeyError, TypeError, ValueError) as exc:
        raise BadLayout("The file is an OCI layout, but not one that export_publish wrote.") from exc
    if not isinstance(about, dict):
        raise BadLayout("The file is an OCI layout, but not one that export_publish wrote.")
    return about


def push(client: Client, base: str, found: Layout, progress: Progress) -> list[Part]:
    """Brings everything to the registry, under the same tags and digests; answers what has a name.

    What is there already is not sent again. Raises `BadLayout`, `RegistryFault`, `Unavailable`.
    """
    described = [_described(entry) for entry in _entries(found)]
    for part, _subject in described:
        if part.tag:
            _push_tree(client, f"{base}/{part.repository}", part.tag, found, part.digest, progress, MOST_DEPTH)
    for part, subject in described:
        if subject:
            _push_referrer(client, f"{base}/{part.repository}", found, part.digest, progress)
    return [part for part, _ in described if part.name]


def _push_tree(
    client: Client, repository: str, reference: str, found: Layout, digest: str, progress: Progress, depth: int
) -> None:
    """Children first, so that what a tag names is whole."""
    if not depth:
        raise BadLayout("The file nests indexes too deep.")
    manifest, content = _manifest(found, digest)
    for child in _children(content):
        _push_tree(client, repository, child, found, child, progress, depth - 1)
    parts = tuple(_blob(found, entry) for entry in _blob_descriptors(content))
    packages.push(client, Package(repository, reference, manifest, parts), progress)


def _push_referrer(client: Client, repository: str, found: Layout, digest: str, progress: Progress) -> None:
    manifest, content = _manifest(found, digest)
    try:
        about = content["subject"]
        subject = Subject(repository, about["digest"], about["size"], about["mediaType"])
    except (KeyError, TypeError) as exc:
        raise BadLayout(f"{digest} is named as a referrer and refers to nothing.") from exc
    parts = [_blob(found, entry) for entry in _blob_descriptors(content)]
    referrers.attach(client, subject, referrers.listed(client, subject), manifest, parts, progress)


def _manifest(found: Layout, digest: str) -> tuple[Manifest, dict[str, Any]]:
    packed = found.small(digest)
    try:
        content = json.loads(packed)
        return Manifest(packed, str(content.get("mediaType") or manifests.IMAGE)), content
    except (ValueError, AttributeError) as exc:
        raise BadLayout(f"{digest} is named as a manifest and is none.") from exc


def _blob(found: Layout, descriptor: dict[str, Any]) -> Blob:
    digest, size = descriptor["digest"], found.size(descriptor["digest"])
    if size != descriptor.get("size"):
        raise BadLayout(f"The file was changed or damaged: {digest} has {size} bytes, not {descriptor.get('size')}.")
    return Blob(digest, size, str(descriptor.get("mediaType", "")), f"the blob {digest[:19]}", _opener(found, digest))


def _opener(found: Layout, digest: str) -> Callable[[], BinaryIO]:
    return lambda: found.open(digest)


def _entries(found: Layout) -> list[dict[str, Any]]:
    entries = found.index.get("manifests")
    if not isinstance(entries, list) or len(entries) > MOST_MANIFESTS:
        raise BadLayout("index.json has no usable list of manifests.")
    return entries


def _described(entry: Any) -> tuple[Part, bool]:
    """A line of the index, checked before anything of it is used as a path; and whether it refers to another."""
    try:
        noted = entry["annotations"]
        part = Part(noted.get(NAME, ""), noted[REPOSITORY], noted.get(TAG, ""), entry["digest"])
        usable = (
            _REPOSITORY.match(part.repository) and _DIGEST.match(part.digest) and (not part.tag or _TAG.match(part.tag))
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise BadLayout("index.json names a manifest without saying where it belongs.") from exc
    if not usable:
        raise BadLayout(f"index.json names a place that no registry has: {str(part.repository)[:80]!r}.")
    return part, not part.tag


def _gather(client: Client, repository: str, manifest: Manifest, gathered: _Gathered, depth: int) -> None:
    """A manifest, its blobs and, for an index, its children."""
    gathered.entries[manifest.digest] = _held(manifest)
    content = json.loads(manifest.content)
    for digest in _children(content):
        if not depth:
            raise layout.BadLayout(f"{repository} nests indexes too deep.")
        _gather(client, repository, manifests.get(client, repository, digest), gathered, depth - 1)
    for descriptor in _blob_descriptors(content):
        digest = descriptor["digest"]
        pieces = _downloader(client, repository, digest)
        gathered.entries.setdefault(digest, Entry(digest, descriptor["size"], pieces))


def _gather_signatures(client: Client, base: str, part: Part, gathered: _Gathered) -> None:
    repository, tag = f"{base}/{part.repository}", signing.legacy_tag(part.digest)
    digest = manifests.head(client, repository, tag)
    if digest is None:
        return
    content = manifests.get(client, repository, digest)
    _list(gathered, f"{part.name}.sig", part.repository, tag, content)
    _gather(client, repository, content, gathered, 1)


def _gather_referrers(client: Client, base: str, part: Part, manifest: Manifest, gathered: _Gathered) -> None:
    repository = f"{base}/{part.repository}"
    subject = Subject(repository, manifest.digest, len(manifest.content), manifest.media_type)
    for entry in sorted(referrers.listed(client, subject).found, key=lambda entry: str(entry["digest"])):
        content = manifests.get(client, repository, str(entry["digest"]))
        _list(gathered, "", part.repository, "", content)
        _gather(client, repository, content, gathered, 1)


def _list(gathered: _Gathered, name: str, repository: str, tag: str, manifest: Manifest) -> None:
    noted = {NAME: name, REPOSITORY: repository, TAG: tag}
    content = json.loads(manifest.content)
    kind = {"artifactType": content["artifactType"]} if "artifactType" in content else {}
    gathered.listed.append(
        {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.content),
            **kind,
            "annotations": {key: value for key, value in noted.items() if value},
        }
    )


def _held(manifest: Manifest) -> Entry:
    return Entry(manifest.digest, len(manifest.content), lambda: iter((manifest.content,)))


def _downloader(client: Client, repository: str, digest: str) -> Callable[[], Iterator[bytes]]:
    return lambda: blobs.download(client, repository, digest)


def _children(content: Mapping[str, Any]) -> list[str]:
    """Digests of an index's manifests."""
    found = content.get("manifests") or []
    digests = [str(entry["digest"]) for entry in found if isinstance(entry, dict) and "digest" in entry]
    return [digest for digest in digests if _DIGEST.match(digest)]


def _blob_descriptors(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Config and layers of a manifest, each digest once."""
    found = [content.get("config"), *(content.get("layers") or [])]
    usable = [
        entry
        for entry in found
        if isinstance(entry, dict) and _DIGEST.match(str(entry.get("digest"))) and isinstance(entry.get("size"), int)
    ]
    return list({entry["digest"]: entry for entry in usable}.values())
