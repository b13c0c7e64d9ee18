"""Access tokens of edges: given to who proved itself, and checked on every call.

An edge's session is not a row of its own: it is the key that the edge joined with and `session_lapses_at`, which every
contact moves on. An access token only proves, for an hour, that the edge holds that key.
"""

import dataclasses
import uuid
from datetime import datetime, timedelta

from django.conf import settings

from edges import jwts, signing
from edges.errors import EdgeBanned, EdgeRemoved, SessionExpired, TokenInvalid
from edges.models import Edge

# Seeds: without contact for 7 days an edge needs a new bundle.
SESSION_LIFE = timedelta(days=7)
# Tokens whose signature this process has checked: 1 KiB each. Cleared when full, which costs a check each again.
VERIFIED_KEPT = 50_000
_verified: dict[str, tuple[str, jwts.Claims]] = {}


@dataclasses.dataclass(frozen=True)
class Session:
    """What an engine works with. `expires_in` is in seconds."""

    access_token: str = dataclasses.field(repr=False)
    expires_in: int
    lapses_at: datetime


@dataclasses.dataclass(frozen=True)
class Identity:
    """Whom an access token names: an edge, and the key that it had joined with when the token was given."""

    subject: str
    thumbprint: str

    @property
    def edge_id(self) -> str:
        """The last part of the SPIFFE ID."""
        return self.subject.rpartition("/")[2]


def token_endpoint() -> str:
    """The audience of client assertions."""
    return f"{settings.PUBLIC_URL}/edge/v1/token"


def audience() -> str:
    """The audience of access tokens: the device API of this center."""
    return f"{settings.PUBLIC_URL}/edge/v1"


def start(edge: Edge, now: datetime) -> Session:
    """An access token for an edge that has just proved that it holds its key."""
    signer = signing.signer(now)
    token = jwts.sign_access_token(
        subject=edge.spiffe_id,
        audience=audience(),
        thumbprint=edge.key_thumbprint,
        key=signer.private,
        kid=signer.kid,
        now=now,
    )
    return Session(token, int(jwts.ACCESS_TOKEN_LIFE.total_seconds()), edge.session_lapses_at or now + SESSION_LIFE)


def edge_with(access_token: str, now: datetime) -> Edge:
    """The edge whose access token this is, if it may talk to us.

    Raises `TokenInvalid`, `TokenExpired`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """
    return edge_of(proven(access_token, now), now)


def edge_of(identity: Identity, now: datetime) -> Edge:
    """The edge that proved its identity, if it may talk to us, with its publish, pipeline version and pipeline.

    Raises `TokenInvalid`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """
    edge = edge_named(identity.subject)
    if edge is None:
        raise TokenInvalid("The access token names no edge of this center: get a new bundle.")
    require_admitted(edge)
    if edge.key_thumbprint != identity.thumbprint:
        raise TokenInvalid("This edge joined again with another key: use the newer session.")
    require_live(edge, now)
    return edge


def proven(access_token: str, now: datetime) -> Identity:
    """Whom a good access token names. Raises `TokenInvalid`, `TokenExpired`.

    A signature is checked once in a process: a token that was good stays so until it ends or its key does.
    """
    known = _verified.get(access_token)
    if known is None:
        kid = jwts.kid_of(access_token)
        signer = signing.verifier(kid, now)
        if signer is None:
            raise TokenInvalid("The access token was not signed by this center: get one at the token endpoint.")
        claims = jwts.verify_access_token(access_token, key=signer.public, audience=audience(), now=now)
        if len(_verified) >= VERIFIED_KEPT:
            _verified.clear()
        _verified[access_token] = kid, claims
        return _identity(claims)
    kid, claims = known
    if signing.verifier(kid, now) is None:
        raise TokenInvalid("The key that signed this access token is gone: get one at the token endpoint.")
    jwts.require_current(claims, audience=audience(), now=now)
    return _identity(claims)


def recognised(access_token: str, now: datetime) -> Identity | None:
    """Whom a token names that this process has checked and that is still good; None says nothing about it."""
    kid, claims = _verified.get(access_token, ("", None))
    if claims is None or signing.verifier(kid, now) is None or not jwts.is_current(claims, audience(), now):
        return None
    return _identity(claims)


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


def forget_tokens() -> None:
    """Makes this process check every signature again."""
    _verified.clear()


def _identity(claims: jwts.Claims) -> Identity:
    return Identity(claims.subject, claims.thumbprint)
