"""Signatures that cosign verifies: ECDSA P-256 over SHA-256, in both layouts that verifiers read. Pure.

Legacy: simple-signing payloads as layers of the tag `sha256-<hex>.sig` (cosign's SIGNATURE_SPEC.md).
New: an in-toto statement in a DSSE envelope in a Sigstore bundle v0.3 (sigstore/protobuf-specs), a referrer.
Signing is deterministic (RFC 6979): the same key and content give the same bytes, so nothing is attached twice.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils.translation import gettext as _

from publishing.errors import UnusableSigningKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
SIMPLE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIMPLE_SIGNATURE = "dev.cosignproject.cosign/signature"
STATEMENT = "https://in-toto.io/Statement/v1"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
MOST_KEY = 16 * 1024  # bytes; an EC key in PEM is 250

ALGORITHM = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


@dataclass(frozen=True)
class Signer:
    """A private key, ready to sign. Made by `signer`."""

    key: ec.EllipticCurvePrivateKey
    fingerprint: str

    def sign(self, content: bytes) -> bytes:
        """An ASN.1 DER signature of these bytes."""
        return self.key.sign(content, ALGORITHM)


def generate() -> str:
    """A new private key, PKCS #8 in PEM."""
    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def imported(pem: bytes, password: str = "") -> str:
    """A private key that a person brings, as PKCS #8 in PEM without a password. Raises `UnusableSigningKey`."""
    if len(pem) > MOST_KEY:
        raise UnusableSigningKey(_("A signing key in PEM has at most %(most_key)s bytes.") % {"most_key": MOST_KEY})
    if b"SIGSTORE PRIVATE KEY" in pem or b"COSIGN PRIVATE KEY" in pem:
        raise UnusableSigningKey(
            _(
                "This is cosign's own encrypted key format, which cannot be read here: bring the key in PKCS "
                "#8 (openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8), or let one be "
                "made."
            )
        )
    try:
        key = serialization.load_pem_private_key(pem, password.encode() if password else None)
    except TypeError as exc:  # a password is missing, or given to a key without one
        raise UnusableSigningKey(
            _("The key has a password that was not given, or was given one it does not have.")
        ) from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise UnusableSigningKey(_("This is not a private key in PEM format, or its password is another.")) from exc
    return _private_pem(_p256(key))


def signer(private_pem: str) -> Signer:
    """Raises `UnusableSigningKey`."""
    try:
        key = _p256(serialization.load_pem_private_key(private_pem.encode(), None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise UnusableSigningKey(_("The stored signing key cannot be read: make or import another.")) from exc
    return Signer(key, fingerprint_of(public_pem(private_pem)))


def public_pem(private_pem: str) -> str:
    """The public half, which verifiers are given (`cosign verify --key`)."""
    key = serialization.load_pem_private_key(private_pem.encode(), None)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def fingerprint_of(public: str) -> str:
    """SHA-256 of the public key's DER in hexadecimal. Raises `ValueError` for what is no key."""
    return _der_digest(public).hex()


def simple_payload(reference: str, digest: str) -> bytes:
    """What the legacy layout signs: `digest` is the signed manifest's, `reference` its repository without a tag."""
    return _json(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def legacy_tag(digest: str) -> str:
    """Where cosign looks for legacy signatures of a manifest."""
    return f"{digest.replace(':', '-')}.sig"


def statement(name: str, digest: str, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """An in-toto statement about one manifest."""
    subject: dict[str, Any] = {"digest": {"sha256": digest.removeprefix("sha256:")}}
    return {
        "_type": STATEMENT,
        "subject": [({"name": name} if name else {}) | subject],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def bundle(key: Signer, content: dict[str, Any]) -> bytes:
    """A statement, signed: the Sigstore bundle that is stored as a referrer."""
    payload = _json(content)
    hint = base64.b64encode(bytes.fromhex(key.fingerprint)).decode()
    return _json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": STATEMENT_TYPE,
                "signatures": [{"sig": base64.b64encode(key.sign(_pae(payload))).decode()}],
            },
        }
    )


def verified_statement(content: bytes, public: str) -> dict[str, Any]:
    """The statement in a bundle that this public key signed. Raises `ValueError` when it did not."""
    try:
        envelope = json.loads(content)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"]]
    except (KeyError, TypeError, binascii.Error) as exc:
        raise ValueError("this is no Sigstore bundle with a DSSE envelope") from exc
    if not any(is_signed(_pae(payload), signature, public) for signature in signatures):
        raise ValueError("no signature in the bundle is of this key")
    found = json.loads(payload)
    if not isinstance(found, dict):
        raise ValueError("the bundle holds no statement")
    return found


def is_signed(content: bytes, signature: bytes, public: str) -> bool:
    """Whether this signature of these bytes was made with the private half of `public`."""
    key = serialization.load_pem_public_key(public.encode())
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1: what is signed of an envelope."""
    kind = STATEMENT_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _p256(key: object) -> ec.EllipticCurvePrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnusableSigningKey(_("A signing key is an ECDSA key on the curve P-256 (prime256v1)."))
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _der_digest(public: str) -> bytes:
    key = serialization.load_pem_public_key(public.encode())
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
