"""What is said about a manifest: artifacts with a `subject`, listed by the registry or, where it cannot, in a tag.

OCI distribution-spec 1.1, "Listing Referrers" and "Pushing Manifests with Subject". A registry without the referrers
API (GHCR, distribution 2.x) answers 404 to it; the client then keeps the index `sha256-<hex>` itself.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from publishing.oci import auth, blobs, manifests
from publishing.oci.client import Answer, Call, Client
from publishing.oci.content import Blob, Progress, of_bytes
from publishing.oci.faults import RegistryFault
from publishing.oci.manifests import Manifest

INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
# What registries without the API answer: 404 by the specification, the others seen at proxies before one.
NOT_SERVED = frozenset({400, 404, 405, 501})
MOST_PAGES = 100

_NEXT = re.compile(r'<(?P<url>[^>]+)>\s*;[^,]*rel="?next"?')


@dataclass(frozen=True)
class Subject:
    """A manifest in a repository that something is said about."""

    repository: str
    digest: str
    size: int
    media_type: str = manifests.IMAGE

    def descriptor(self) -> dict[str, object]:
        """The OCI content descriptor."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @property
    def fallback_tag(self) -> str:
        """Where its referrers are listed in a registry that does not do it."""
        return self.digest.replace(":", "-")


@dataclass(frozen=True)
class Referrers:
    """Descriptors of what refers to a subject, and whether the registry keeps the list itself."""

    found: tuple[dict[str, Any], ...]
    served: bool

    def has(self, digest: str) -> bool:
        """Whether this manifest is listed."""
        return any(descriptor.get("digest") == digest for descriptor in self.found)


def build(
    subject: Subject, artifact_type: str, layer: Blob, annotations: Mapping[str, str]
) -> tuple[Manifest, tuple[Blob, ...]]:
    """An artifact of one layer about a subject: its manifest and its blobs."""
    config = of_bytes(b"{}", EMPTY_TYPE, "the empty config")
    content = {
        "schemaVersion": 2,
        "mediaType": manifests.IMAGE,
        "artifactType": artifact_type,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "subject": subject.descriptor(),
        "annotations": dict(annotations),
    }
    packed = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return Manifest(packed, manifests.IMAGE), (config, layer)


def listed(client: Client, subject: Subject) -> Referrers:
    """Everything that refers to a subject. Raises `RegistryFault`, `Unavailable`."""
    found: list[dict[str, Any]] = []
    url = f"/v2/{subject.repository}/referrers/{subject.digest}"
    for _ in range(MOST_PAGES):
        answer = _ask(client, subject, url)
        if answer.status != 200:
            return Referrers(_fallback(client, subject), served=False)
        found += _descriptors(answer.content, client.registry.host)
        following = _NEXT.search(answer.headers.get("Link", ""))
        if not following:
            return Referrers(tuple(found), served=True)
        url = urljoin(url, following["url"])
    raise RegistryFault(f"{client.registry.host} lists the referrers of {subject.digest} without end.")


def attach(
    client: Client,
    subject: Subject,
    known: Referrers,
    manifest: Manifest,
    parts: Sequence[Blob],
    progress: Progress = lambda _more: None,
) -> None:
    """Pushes an artifact about a subject and sees to it that it is listed; nothing is sent for one that is.

    `known` is what `listed` answered. Raises `RegistryFault`, `Unavailable` and what `progress` raises.
    """
    if known.has(manifest.digest):
        return
    blobs.push_all(client, subject.repository, parts, progress)
    manifests.put(client, subject.repository, manifest.digest, manifest)
    if not known.served:
        _list_in_tag(client, subject, manifest)


def descriptor_of(manifest: Manifest) -> dict[str, Any]:
    """As a registry lists it: with the artifact's type and annotations."""
    content = json.loads(manifest.content)
    return {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.content),
        "artifactType": content["artifactType"],
        "annotations": content.get("annotations", {}),
    }


def _list_in_tag(client: Client, subject: Subject, manifest: Manifest) -> None:
    """Read now, not from an earlier list: only what comes between this read and the write can be lost."""
    entries = [entry for entry in _fallback(client, subject) if entry.get("digest") != manifest.digest]
    entries.append(descriptor_of(manifest))
    entries.sort(key=lambda entry: str(entry["digest"]))
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    packed = Manifest(json.dumps(index, sort_keys=True, separators=(",", ":")).encode(), INDEX)
    manifests.put(client, subject.repository, subject.fallback_tag, packed)


def _fallback(client: Client, subject: Subject) -> tuple[dict[str, Any], ...]:
    if manifests.head(client, subject.repository, subject.fallback_tag) is None:
        return ()
    index = manifests.get(client, subject.repository, subject.fallback_tag)
    return tuple(_descriptors(index.content, client.registry.host))


def _ask(client: Client, subject: Subject, url: str) -> Answer:
    call = Call(
        "GET",
        url,
        f"the list of what refers to {subject.digest[:19]}",
        subject.repository,
        (auth.push_scope(subject.repository),),
        headers={"Accept": INDEX},
        expected=NOT_SERVED | {200},
        most=manifests.MOST_BYTES,
    )
    return client.retry(lambda: client.exchange(call))


def _descriptors(content: bytes, host: str) -> list[dict[str, Any]]:
    """The entries of an index that are usable. Raises `RegistryFault` for what is not an index."""
    try:
        entries = json.loads(content)["manifests"]
    except (ValueError, KeyError, TypeError) as exc:
        raise RegistryFault(f"{host} answered the list of referrers with something that is no OCI index.") from exc
    if entries is None:  # an empty list as some registries write it
        return []
    if not isinstance(entries, list):
        raise RegistryFault(f"{host} answered the list of referrers with something that is no OCI index.")
    return [entry for entry in entries if isinstance(entry, dict) and "digest" in entry]
