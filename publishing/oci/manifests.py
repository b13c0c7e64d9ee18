"""Manifests: kept byte for byte, so the digest is that of the bytes we made."""

import hashlib
from dataclasses import dataclass

from publishing.oci import auth
from publishing.oci.client import Call, Client
from publishing.oci.faults import RegistryFault

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = ", ".join(
    (
        IMAGE,
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
MOST_BYTES = 4 * 1024 * 1024  # what every registry must take


@dataclass(frozen=True)
class Manifest:
    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the content."""
        return digest_of(self.content)


def digest_of(content: bytes) -> str:
    """`sha256:<hex>` of these bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put(client: Client, repository: str, tag: str, manifest: Manifest) -> None:
    """Stores a manifest under a tag, unless it is there already. Raises `RegistryFault`, `Unavailable`."""
    if head(client, repository, tag) == manifest.digest:
        return
    call = Call(
        "PUT",
        f"/v2/{repository}/manifests/{tag}",
        f"the write of the manifest {repository}:{tag}",
        repository,
        (auth.push_scope(repository),),
        headers={"Content-Type": manifest.media_type},
        body=lambda: manifest.content,
        expected=frozenset({201}),
    )
    answer = client.retry(lambda: client.exchange(call))
    stored = answer.headers.get("Docker-Content-Digest", manifest.digest)
    if stored != manifest.digest:
        raise RegistryFault(f"{client.registry.host} stored another manifest than we sent ({stored}).")


def head(client: Client, repository: str, reference: str) -> str | None:
    """The digest that a tag stands for, None when there is none or the registry does not say."""
    call = _read("HEAD", repository, reference, frozenset({200, 404}))
    answer = client.retry(lambda: client.exchange(call))
    return answer.headers.get("Docker-Content-Digest") if answer.status == 200 else None


def get(client: Client, repository: str, reference: str) -> Manifest:
    """A manifest or index. Raises `RegistryFault` when it is absent or not the one that a digest names."""
    call = _read("GET", repository, reference, frozenset({200}))
    answer = client.retry(lambda: client.exchange(call))
    manifest = Manifest(answer.content, answer.headers.get("Content-Type", IMAGE))
    if reference.startswith("sha256:") and manifest.digest != reference:
        raise RegistryFault(f"{client.registry.host} sent another manifest than {reference}.")
    return manifest


def _read(method: str, repository: str, reference: str, expected: frozenset[int]) -> Call:
    return Call(
        method,
        f"/v2/{repository}/manifests/{reference}",
        f"the look-up of {repository}:{reference}",
        repository,
        (auth.push_scope(repository),) if method == "HEAD" else (auth.pull_scope(repository),),
        headers={"Accept": ACCEPT},
        expected=expected,
        most=MOST_BYTES,
    )
