"""Join tokens and the keys of edges: making, hashing and checking them. Nothing here reads or writes the database."""

import base64
import binascii
import functools
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import Invalid

COORDINATE_BYTES = 32  # of a P-256 point, RFC 7518 section 6.2.1.2


def make_join_token() -> str:
    """A new join token: a UUIDv4, 122 random bits, as in the seeds' bundles."""
    return str(uuid.uuid4())


def join_token_digest(join_token: str, secret: str) -> str:
    """What is stored of a join token: HMAC-SHA256, hex, with a key that only the server knows.

    A stolen database gives neither tokens nor a way to test a guess.
    """
    return hmac.new(_derived(secret), join_token.lower().encode(), hashlib.sha256).hexdigest()


@functools.lru_cache(maxsize=8)
def _derived(secret: str) -> bytes:
    # A key of its own, so that a join token's hash is never also a signature of something else.
    return HKDF(hashes.SHA256(), length=32, salt=None, info=b"opscenter edge join token v1").derive(secret.encode())


def public_jwk(given: Mapping[str, Any]) -> dict[str, str]:
    """The public EC P-256 key in a JWK (RFC 7517), reduced to the members that make it up. Raises `Invalid`."""
    if "d" in given:
        raise Invalid("public_key holds a private key: send only kty, crv, x and y, and make a new key.")
    if given.get("kty") != "EC" or given.get("crv") != "P-256":
        raise Invalid('public_key must be a JWK with "kty": "EC" and "crv": "P-256".')
    jwk = {"kty": "EC", "crv": "P-256", "x": _text(given, "x"), "y": _text(given, "y")}
    public_key(jwk)
    return jwk


def public_key(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    """The key of a JWK. Raises `Invalid` when its point is not on the curve."""
    numbers = ec.EllipticCurvePublicNumbers(_coordinate(jwk, "x"), _coordinate(jwk, "y"), ec.SECP256R1())
    try:
        return numbers.public_key()
    except ValueError as exc:
        raise Invalid("public_key is not a point on the curve P-256.") from exc


def jwk_of(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The JWK of a P-256 public key."""
    numbers = key.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _encoded(numbers.x), "y": _encoded(numbers.y)}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638: base64url of SHA-256 over the required members in lexical order, without white space."""
    members = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise Invalid(f'public_key lacks "{name}".')
    return value


def _coordinate(jwk: Mapping[str, str], name: str) -> int:
    value = jwk[name]
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Invalid(f'"{name}" of public_key is not base64url.') from exc
    number = int.from_bytes(decoded, "big")
    # Comparing with our own encoding refuses every second spelling, which would give one key two thumbprints.
    if len(decoded) != COORDINATE_BYTES or _encoded(number) != value:
        raise Invalid(f'"{name}" of public_key must be {COORDINATE_BYTES} bytes in base64url without padding.')
    return number


def _encoded(coordinate: int) -> str:
    return base64.urlsafe_b64encode(coordinate.to_bytes(COORDINATE_BYTES, "big")).rstrip(b"=").decode()
