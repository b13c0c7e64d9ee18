"""The keys that sign access tokens of edges: made on first use, rotated, and forgotten when no token needs them.

The newest key signs. An older one goes on verifying for as long as a token that it signed can live; then beat deletes
it. Processes keep the keys for `RING_LIFE`, so that a call costs neither a query nor a decryption.
"""

import dataclasses
import logging
import threading
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import IntegrityError, transaction
from django.db.models import Max

from edges import jwts, tokens
from edges.models import SigningKey

logger = logging.getLogger(__name__)

# How long a process may go on with the keys that it read: after a rotation others sign with the old key meanwhile.
RING_LIFE = timedelta(seconds=30)
# From when a successor exists: the old key may sign for RING_LIFE more, and its last token then lives its hour.
VERIFIES_ON = jwts.ACCESS_TOKEN_LIFE + 2 * RING_LIFE
# Unknown key ids come from tokens of strangers too, who must not cost a query a call.
UNKNOWN_APART = timedelta(seconds=1)


@dataclasses.dataclass(frozen=True)
class Signer:
    """A signing key, ready to use."""

    kid: str
    generation: int
    private: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)
    created_at: datetime

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The half that verifies."""
        return self.private.public_key()


@dataclasses.dataclass(frozen=True)
class _Ring:
    signers: tuple[Signer, ...]
    read_at: datetime


_lock = threading.Lock()
_ring: _Ring | None = None


def signer(now: datetime) -> Signer:
    """The key that signs, made on first use by whichever process comes first."""
    signers = _signers(now)
    if not signers:
        _make(1, now)
        signers = _read(now)
    return signers[0]


def verifier(kid: str, now: datetime) -> Signer | None:
    """The key with this id, if tokens that it signed may still be good."""
    found = _find(kid, _signers(now), now)
    if found is None and _ring and not now - UNKNOWN_APART < _ring.read_at <= now:
        found = _find(kid, _read(now), now)  # another process may have rotated since
    return found


def jwks(now: datetime) -> list[dict[str, str]]:
    """The public keys that verify access tokens, as JWKs (RFC 7517), newest first."""
    signer(now)
    signers = _signers(now)
    live = (key for key in signers if _verifies(key, signers, now))
    return [{**tokens.jwk_of(key.public), "kid": key.kid, "alg": jwts.ALGORITHM, "use": "sig"} for key in live]


def rotate(now: datetime, *, forget: bool = False) -> str:
    """Makes a new key, which signs from now on; returns its id. Tokens of older keys stay good until they end.

    With `forget` the older ones are deleted at once, for a key that leaked: edges get new tokens by themselves.
    """
    with transaction.atomic():
        newest = SigningKey.objects.aggregate(newest=Max("generation"))["newest"] or 0
        made = _make(newest + 1, now)
        if forget:
            SigningKey.objects.filter(generation__lt=made.generation).delete()
    forget_ring()
    logger.info("access tokens of edges are signed with key %s from now on", made.kid)
    return made.kid


def prune(now: datetime) -> int:
    """Deletes the keys whose last token has ended. Returns how many."""
    signers = _read(now)
    over = [key.generation for key in signers if not _verifies(key, signers, now)]
    return SigningKey.objects.filter(generation__in=over).delete()[0] if over else 0


def forget_ring() -> None:
    """Makes this process read the keys again."""
    global _ring
    with _lock:
        _ring = None


def _signers(now: datetime) -> tuple[Signer, ...]:
    ring = _ring
    # Also when the clock was set back, so that a ring from "tomorrow" is not kept for a day.
    if ring and ring.read_at <= now < ring.read_at + RING_LIFE:
        return ring.signers
    return _read(now)


def _read(now: datetime) -> tuple[Signer, ...]:
    global _ring
    signers = tuple(Signer(row.kid, row.generation, _private(row), row.created_at) for row in SigningKey.objects.all())
    with _lock:
        # Without keys there is nothing to keep: the first one may be made at any moment.
        _ring = _Ring(signers, now) if signers else None
    return signers


def _find(kid: str, signers: tuple[Signer, ...], now: datetime) -> Signer | None:
    return next((key for key in signers if key.kid == kid and _verifies(key, signers, now)), None)


def _verifies(key: Signer, signers: tuple[Signer, ...], now: datetime) -> bool:
    successors = [other.created_at for other in signers if other.generation > key.generation]
    return not successors or now < min(successors) + VERIFIES_ON


def _make(generation: int, now: datetime) -> SigningKey:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    kid = tokens.thumbprint(tokens.jwk_of(private.public_key()))
    try:
        with transaction.atomic():
            return SigningKey.objects.create(generation=generation, kid=kid, private_key=pem.decode(), created_at=now)
    except IntegrityError:
        return SigningKey.objects.get(generation=generation)  # somebody else made this generation: it is as good


def _private(row: SigningKey) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(row.private_key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"Signing key {row.kid} is not an EC key.")
    return key
