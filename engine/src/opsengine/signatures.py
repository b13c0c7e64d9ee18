"""Signatures of publishes, as cosign writes them: ECDSA P-256 over SHA-256, checked with one pinned public key.

Both layouts are read: the manifest at tag `sha256-<hex>.sig` with simple-signing payloads, and Sigstore bundles that
refer to the publish (by the referrers API, else the tag `sha256-<hex>`). What was found is kept beside the blobs, so
that a start without a network checks it again.

"Could not be listed" (RegistryUnavailable, tried again) and "is not signed" (SignatureError, final) are different
answers. A signature is not asked for at all unless a key is set.
"""

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from opsengine.errors import RegistryError, SignatureError
from opsengine.evidence import UNREADABLE, Evidence, PublicKey, holds
from opsengine.locations import Reference
from opsengine.registry import MANIFEST_TYPE, RegistryClient
from opsengine.store import DIGEST, write_file

SIMPLE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIMPLE_ANNOTATION = "dev.cosignproject.cosign/signature"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# Signatures of others may stand there too; so many are looked at.
MOST = 32


def find(client: RegistryClient, reference: Reference, digest: str, key: PublicKey) -> Evidence:
    """Look both layouts up.

    Raises SignatureError where no signature holds, RegistryUnavailable where they could not be read.
    """
    seen = 0
    for layout in (_simple, _bundles):
        for evidence in layout(client, reference, digest):
            seen += 1
            if holds(evidence, digest, key):
                return evidence
    if seen:
        raise SignatureError(
            f"{digest} is signed, but not with the key in COSIGN_PUBLIC_KEY: check the key, or sign the publish again."
        )
    raise SignatureError(f"{digest} is not signed, and a signature is required: sign the publish.")


def _simple(client: RegistryClient, reference: Reference, digest: str) -> Iterator[Evidence]:
    manifest = client.look(reference, f"manifests/{digest.replace(':', '-')}.sig", MANIFEST_TYPE)
    for layer in _layers(manifest, SIMPLE_TYPE):
        signature = layer.get("annotations", {}).get(SIMPLE_ANNOTATION, "")
        payload = client.look(reference, f"blobs/{layer['digest']}")
        if payload and isinstance(signature, str):
            yield {"layout": "tag", "message": base64.b64encode(payload).decode(), "signature": signature}


def _bundles(client: RegistryClient, reference: Reference, digest: str) -> Iterator[Evidence]:
    pages = client.look_pages(reference, f"referrers/{digest}")
    first = next(pages, None) or client.look(reference, f"manifests/{digest.replace(':', '-')}")
    found = (one for page in itertools.chain((first or b"{}",), pages) for one in _listed(page))
    for referrer in itertools.islice(found, MOST):
        # Descriptors may name another artifact type than the manifest has: each is opened.
        for layer in _layers(client.look(reference, f"manifests/{referrer}", MANIFEST_TYPE), BUNDLE_TYPE):
            bundle = client.look(reference, f"blobs/{layer['digest']}")
            yield from _envelope(bundle or b"")


def _listed(index: bytes) -> list[str]:
    try:
        return [
            one for one in (str(one["digest"]) for one in orjson.loads(index)["manifests"]) if DIGEST.fullmatch(one)
        ]
    except UNREADABLE:
        return []


def _layers(manifest: bytes | None, media_type: str) -> list[dict[str, Any]]:
    try:
        layers = orjson.loads(manifest or b"{}").get("layers", [])[:MOST]
        return [one for one in layers if one["mediaType"] == media_type and DIGEST.fullmatch(one["digest"])]
    except UNREADABLE:
        return []


def _envelope(bundle: bytes) -> Iterator[Evidence]:
    """The signatures of a bundle's DSSE envelope, with the very bytes that they are made over."""
    try:
        envelope = orjson.loads(bundle)["dsseEnvelope"]
        kind, payload = str(envelope["payloadType"]).encode(), base64.b64decode(envelope["payload"])
        signatures = [str(one["sig"]) for one in envelope["signatures"][:MOST]]
    except UNREADABLE:
        return
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for signature in signatures:
        yield {"layout": "bundle", "message": base64.b64encode(message).decode(), "signature": signature}


class Proofs:
    """Evidence under `<folder>/<hex>.json`. Without a key nothing is asked for."""

    def __init__(self, folder: Path, key: PublicKey | None) -> None:
        self._folder = folder
        self._key = key

    def require(self, client: RegistryClient, reference: Reference, digest: str) -> None:
        """Have evidence for the publish, from here or from the registry. Raises SignatureError, RegistryUnavailable."""
        if self._key and not self.has(digest):
            evidence = find(client, reference, digest, self._key)
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._path(digest), orjson.dumps(evidence))

    def has(self, digest: str, *, strict: bool = False) -> bool:
        """Whether the publish may be served: evidence that holds is here, or none is required.

        `strict`: raises PermissionError where this user may not read it.
        """
        if self._key is None:
            return True
        try:
            return holds(orjson.loads(self._path(digest).read_bytes()), digest, self._key)
        except (OSError, ValueError) as error:
            if strict and isinstance(error, PermissionError):
                raise
            return False

    def keep_only(self, digests: list[str]) -> None:
        """Delete the evidence of all other publishes."""
        keep = {self._path(digest).name for digest in digests}
        for path in self._folder.glob("*.json"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise RegistryError(f"{digest[:80]!r} is not a sha256 digest: publish the pipeline again.")
        return self._folder / f"{digest.removeprefix('sha256:')}.json"
