"""The two JWTs that edges use: our access token (a JWT-SVID) and their client assertion (RFC 7523). No models here.

The time is always an argument: the server's clock decides every lifetime, and tests bring their own.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from edges.errors import InvalidAssertion, TokenExpired, TokenInvalid

# The only one we take: fixing it refuses `none` and HMAC keyed with a public key.
ALGORITHM = "ES256"
# SPIFFE JWT-SVID section 2: no other header may be there.
HEADERS = {"alg", "kid", "typ"}
ACCESS_TOKEN_LIFE = timedelta(hours=1)
ASSERTION_LIFE = timedelta(minutes=5)
# The clock of an edge may be a little off, even after it learnt the offset from `server_time`.
LEEWAY = timedelta(minutes=5)
JTI_LENGTH = 255

# Signature, algorithm and shape are PyJWT's work; the claims are checked here, against the time that was given.
_NO_CLAIM_CHECKS: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


@dataclasses.dataclass(frozen=True)
class Assertion:
    """A client assertion that was verified."""

    jti: str
    valid_until: datetime


@dataclasses.dataclass(frozen=True)
class Claims:
    """What an access token says, its signature checked. `expires` is in epoch seconds."""

    subject: str
    thumbprint: str
    audience: Any
    expires: float


def sign_access_token(
    *, subject: str, audience: str, thumbprint: str, key: ec.EllipticCurvePrivateKey, kid: str, now: datetime
) -> str:
    """A JWT-SVID for an edge, good for one hour.

    `cnf.jkt` (RFC 9449 section 6.1) names the key that the edge joined with, so that tokens end when it joins with
    another key.
    """
    issued = int(now.timestamp())
    claims = {
        "sub": subject,
        "aud": [audience],
        "iat": issued,
        "exp": issued + int(ACCESS_TOKEN_LIFE.total_seconds()),
        "cnf": {"jkt": thumbprint},
    }
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": kid})


def kid_of(token: str) -> str:
    """The `kid` in a token's header, not verified. Raises `TokenInvalid`."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as exc:
        raise TokenInvalid("This is not an access token: get one at the token endpoint.") from exc
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or not set(header) <= HEADERS or not isinstance(kid, str):
        raise TokenInvalid("This is not an access token of ours: get one at the token endpoint.")
    return kid


def verify_access_token(token: str, *, key: ec.EllipticCurvePublicKey, audience: str, now: datetime) -> Claims:
    """What one of our access tokens says. Raises `TokenInvalid`, `TokenExpired`."""
    try:
        found = jwt.decode(token, key, algorithms=[ALGORITHM], options=_NO_CLAIM_CHECKS)
    except jwt.PyJWTError as exc:
        raise TokenInvalid("The access token's signature is not ours: get one at the token endpoint.") from exc
    subject, confirmation = found.get("sub"), found.get("cnf")
    if not isinstance(subject, str) or not isinstance(confirmation, dict):
        raise TokenInvalid("The access token is not meant for this center: get one at the token endpoint.")
    claims = Claims(subject, str(confirmation.get("jkt")), found.get("aud"), _time(found, "exp"))
    require_current(claims, audience=audience, now=now)
    return claims


def require_current(claims: Claims, *, audience: str, now: datetime) -> None:
    """Refuses claims for somebody else or that are over. Raises `TokenInvalid`, `TokenExpired`."""
    if claims.audience != [audience]:
        raise TokenInvalid("The access token is not meant for this center: get one at the token endpoint.")
    if now.timestamp() >= claims.expires:
        raise TokenExpired("The access token is over: get a new one at the token endpoint.")


def is_current(claims: Claims, audience: str, now: datetime) -> bool:
    """Whether claims are meant for this audience and not over."""
    return claims.audience == [audience] and now.timestamp() < claims.expires


def subject_of(assertion: str) -> str:
    """Who an assertion claims to be, not verified: it says whose key to verify it with. Raises `InvalidAssertion`."""
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.PyJWTError as exc:
        raise InvalidAssertion("client_assertion is not a JWT.") from exc
    if header.get("alg") != ALGORITHM or not set(header) <= HEADERS:
        raise InvalidAssertion(f"client_assertion must be signed with {ALGORITHM} and carry only alg, kid and typ.")
    subject = claims.get("sub")
    if not isinstance(subject, str) or claims.get("iss") != subject:
        raise InvalidAssertion("iss and sub of client_assertion must both be the edge's SPIFFE ID.")
    return subject


def verify_assertion(
    assertion: str, *, key: ec.EllipticCurvePublicKey, subject: str, audience: str, now: datetime
) -> Assertion:
    """Checks an edge's assertion with the key that it joined with. Raises `InvalidAssertion`.

    That its `jti` is new is for the caller to see to, until `valid_until`.
    """
    try:
        claims = jwt.decode(assertion, key, algorithms=[ALGORITHM], options=_NO_CLAIM_CHECKS)
    except jwt.PyJWTError as exc:
        raise InvalidAssertion("client_assertion is not signed with the key that this edge joined with.") from exc
    if claims.get("iss") != subject or claims.get("sub") != subject:
        raise InvalidAssertion("iss and sub of client_assertion must both be the edge's SPIFFE ID.")
    if claims.get("aud") not in (audience, [audience]):
        raise InvalidAssertion(f"aud of client_assertion must be {audience}.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= JTI_LENGTH:
        raise InvalidAssertion(f"client_assertion needs a jti of 1 to {JTI_LENGTH} characters.")
    return Assertion(jti=jti, valid_until=_check_times(claims, now))


def _check_times(claims: Mapping[str, Any], now: datetime) -> datetime:
    try:
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
    except TokenInvalid as exc:
        raise InvalidAssertion("iat and exp of client_assertion must be times in seconds.") from exc
    if not 0 < expires - issued <= ASSERTION_LIFE.total_seconds():
        raise InvalidAssertion("exp of client_assertion must be after iat, by at most 5 minutes.")
    leeway, moment = LEEWAY.total_seconds(), now.timestamp()
    if moment >= expires + leeway:
        raise InvalidAssertion("client_assertion is over: add the offset to server_time to your clock.")
    if issued > moment + leeway:
        raise InvalidAssertion("client_assertion is from the future: add the offset to server_time to your clock.")
    return now + timedelta(seconds=expires + leeway - moment)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # `bool` is an `int` for Python; NaN and infinity are floats that compare with everything.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise TokenInvalid(f"{name} is not a time in seconds.")
    return float(value)
