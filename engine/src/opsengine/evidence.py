"""Evidence that a publish was signed: the bytes that a signature is made over, the signature, and whether they hold.

ECDSA P-256 over SHA-256, as `cosign sign --key` makes it, in either of its layouts (opsengine.signatures).
"""

import base64
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from opsengine.errors import SettingsError

STATEMENT_TYPE = "application/vnd.in-toto+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"

PublicKey = ec.EllipticCurvePublicKey
Evidence = dict[str, str]
# What untrusted JSON and base64 can go wrong with.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError)


def read_key(pem: str) -> PublicKey:
    """The public key that `cosign generate-key-pair` wrote. Raises SettingsError."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise SettingsError("COSIGN_PUBLIC_KEY is not an ECDSA P-256 public key in PEM: give the text of cosign.pub.")
    return key


def holds(evidence: Evidence, digest: str, key: PublicKey) -> bool:
    """Whether this evidence proves that the key's owner signed the manifest with this digest."""
    try:
        message, signature = base64.b64decode(evidence["message"]), base64.b64decode(evidence["signature"])
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        told = _payload(message) if evidence["layout"] == "bundle" else orjson.loads(message)
        return digest in (_bundle_digests(told) if evidence["layout"] == "bundle" else _simple_digests(told))
    except (InvalidSignature, *UNREADABLE):
        return False


def _payload(message: bytes) -> dict[str, Any]:
    """The statement inside the bytes that a DSSE signature is made over."""
    word, length, rest = message.split(b" ", 2)
    kind, rest = rest[: int(length)], rest[int(length) + 1 :]
    size, payload = rest.split(b" ", 1)
    if word != b"DSSEv1" or kind != STATEMENT_TYPE.encode() or len(payload) != int(size):
        raise ValueError
    told: dict[str, Any] = orjson.loads(payload)
    return told


def _simple_digests(told: dict[str, Any]) -> list[str]:
    return [str(told["critical"]["image"]["docker-manifest-digest"])]


def _bundle_digests(told: dict[str, Any]) -> list[str]:
    """Subjects of a signing statement; an SBOM or provenance by the same key is no signature of the publish."""
    if told["predicateType"] != SIGN_PREDICATE:
        return []
    return [f"sha256:{one['digest']['sha256']}" for one in told["subject"]]
