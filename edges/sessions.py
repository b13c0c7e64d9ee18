"""Access tokens of edges: signed with keys that are kept here, and checked on every call.

An edge's session is not a row of its own: it is the key that the edge joined with and `session_lapses_at`, which every
contact moves on. An access token only proves, for an hour, that the edge holds that key.
"""

import dataclasses
import uuid
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.db import IntegrityError, transaction

from edges import jwts, tokens
from edges.errors import EdgeBanned, EdgeRemoved, SessionExpired, TokenInvalid
from edges.models import Edge, SigningKey

# Seeds: without contact for 7 days an edge needs a new bundle.
SESSION_LIFE = timedelta(days=7)


@dataclasses.dataclass(frozen=True)
class Session:
    """What an engine works with. `expires_in` is in seconds."""

    access_token: str = dataclasses.field(repr=False)
    expires_in: int
    lapses_at: datetime


def token_endpoint() -> str:
    """The audience of client assertions."""
    return f"{settings.PUBLIC_URL}/edge/v1/token"


def audience() -> str:
    """The audience of access tokens: the device API of this center."""
    return f"{settings.PUBLIC_URL}/edge/v1"


def start(edge: Edge, now: datetime) -> Session:
    """An access token for an edge that has just proved that it holds its key."""
    signer = _signing_key()
    token = jwts.sign_access_token(
        subject=edge.spiffe_id,
        audience=audience(),
        thumbprint=edge.key_thumbprint,
        key=_private_key(signer),
        kid=signer.kid,
        now=now,
    )
    return Session(token, int(jwts.ACCESS_TOKEN_LIFE.total_seconds()), edge.session_lapses_at or now + SESSION_LIFE)


def edge_with(access_token: str, now: datetime) -> Edge:
    """The edge whose access token this is, if it may talk to us.

    Raises `TokenInvalid`, `TokenExpired`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """
    signer = SigningKey.objects.filter(kid=jwts.kid_of(access_token)).first()
    if signer is None:
        raise TokenInvalid("The access token was not signed by this center: get one at the token endpoint.")
    subject, thumbprint = jwts.verify_access_token(
        access_token, key=_private_key(signer).public_key(), audience=audience(), now=now
    )
    edge = edge_named(subject)
    if edge is None:
        raise TokenInvalid("The access token names no edge of this center: get a new bundle.")
    require_admitted(edge)
    if edge.key_thumbprint != thumbprint:
        raise TokenInvalid("This edge joined again with another key: use the newer session.")
    require_live(edge, now)
    return edge


def edge_named(spiffe_id: str) -> Edge | None:
    """The edge of a SPIFFE ID, with its publish; removed ones too. None when the ID is not one of ours."""
    try:
        key = uuid.UUID(spiffe_id.rpartition("/")[2])
    except ValueError:
        return None
    edge = Edge.objects.select_related("publish__pipeline_version__pipeline").filter(pk=key).first()
    return edge if edge and edge.spiffe_id == spiffe_id else None


def require_admitted(edge: Edge) -> None:
    """Refuses an edge that people shut out, whatever it holds. Raises `EdgeRemoved`, `EdgeBanned`."""
    if edge.removed_at:
        raise EdgeRemoved("This edge was removed from the center: add it again and start it with the new bundle.")
    if edge.banned_at:
        raise EdgeBanned("This edge is banned: ask the people who run the center.")


def require_live(edge: Edge, now: datetime) -> None:
    """Refuses an edge that was silent for too long. Raises `SessionExpired`."""
    if edge.session_lapses_at is None or edge.session_lapses_at <= now:
        raise SessionExpired(
            "This edge had no contact for 7 days, so its session is over: reissue its bundle and start it with that."
        )


def _signing_key() -> SigningKey:
    """The key that signs, made on first use by whichever process comes first."""
    newest = SigningKey.objects.first()
    if newest:
        return newest
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    kid = tokens.thumbprint(tokens.jwk_of(private.public_key()))
    try:
        with transaction.atomic():
            return SigningKey.objects.create(generation=1, kid=kid, private_key=pem.decode())
    except IntegrityError:
        return SigningKey.objects.get(generation=1)


def _private_key(signer: SigningKey) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(signer.private_key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"Signing key {signer.kid} is not an EC key.")
    return key
