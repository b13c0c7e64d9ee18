"""What engines do: join once, prove themselves for an access token, check in. One short transaction each.

The server's clock (`now`) decides every lifetime. Every contact moves the end of the session on.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from common.errors import DomainError, NotAuthenticated
from edges import enrolment, jobs, jwts, queries, sessions, tokens
from edges.errors import (
    InvalidAssertion,
    JoinTokenExpired,
    JoinTokenUnknown,
    JoinTokenUsed,
    SessionExpired,
    TokenInvalid,
)
from edges.models import Edge, EdgeEvent, JoinToken, UsedAssertion
from edges.sessions import Session

logger = logging.getLogger(__name__)

# How long the owner of a token may ask again for an answer that got lost.
REPEAT_WINDOW = timedelta(minutes=10)
# Contacts closer together than this are one: shipping logs must not cost a write of the edge a page.
CONTACT_RESOLUTION = timedelta(seconds=10)
# Somebody who holds a spent bundle must not be able to fill the history.
REFUSALS_APART = timedelta(minutes=1)
ANOTHER_KEY = "This edge joined again with another key: use the newer session."


@dataclasses.dataclass(frozen=True)
class Joined:
    edge: Edge
    session: Session


def join(
    *, join_token: str, public_key: Mapping[str, Any], engine: Mapping[str, Any], now: datetime | None = None
) -> Joined:
    """Spends a join token on a key, which is from then on the edge's identity, and starts its session.

    The first key that presents the token owns it. The same key may repeat within 10 minutes, because an answer can get
    lost; nobody else ever gets in with it. Joining with a reissued token replaces the key of the edge.
    A fleet token makes an edge of each key that presents it, see `enrolment`.
    Raises `Invalid`, `JoinTokenUnknown`, `JoinTokenExpired`, `JoinTokenUsed`, `EdgeRemoved`, `EdgeBanned`.
    """
    now = now or timezone.now()
    jwk = tokens.public_jwk(public_key)
    thumbprint = tokens.thumbprint(jwk)
    digest = tokens.join_token_digest(join_token, settings.SECRET_KEY)
    token = JoinToken.objects.filter(digest=digest).first()
    if token is None:
        return _enrolled(digest, jwk, thumbprint, engine, now)
    try:
        with transaction.atomic():
            edge = _spend(token, jwk, thumbprint, engine, now)
    except DomainError as refusal:
        _record_refusal(token.edge_id, EdgeEvent.Kind.JOIN_REFUSED, refusal, now, key_thumbprint=thumbprint)
        raise
    return Joined(edge, sessions.start(edge, now))


def token(*, assertion: str, now: datetime | None = None) -> Session:
    """A new access token for an edge that signs with the key it joined with (RFC 7523 `private_key_jwt`).

    Raises `InvalidAssertion`, `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.
    """
    now = now or timezone.now()
    edge = sessions.edge_named(jwts.subject_of(assertion))
    if edge is None or not edge.public_key:
        raise InvalidAssertion("The edge that client_assertion names never joined here: use the newest bundle.")
    verified = jwts.verify_assertion(
        assertion,
        key=tokens.public_key(edge.public_key),
        subject=edge.spiffe_id,
        audience=sessions.token_endpoint(),
        now=now,
    )
    try:
        with transaction.atomic():
            _use_once(edge, verified)
            edge = _admitted(edge, now, InvalidAssertion(ANOTHER_KEY))
            _contact(edge, now)
    except SessionExpired as refusal:
        _record_refusal(edge.pk, EdgeEvent.Kind.TOKEN_REFUSED, refusal, now)
        raise
    return sessions.start(edge, now)


def note(edge: Edge, *, now: datetime | None = None) -> None:
    """That an edge was heard of, on any authenticated call: moves the end of its session on."""
    now = now or timezone.now()
    if edge.last_contact and edge.last_contact > now - CONTACT_RESOLUTION:
        return
    _move_contact(edge, now)
    # Conditional, because nothing locks the row: people may have shut the edge out since it was read.
    contacted = Edge.objects.filter(pk=edge.pk, removed_at=None, banned_at=None)
    contacted.filter(last_contact__lt=now).update(
        last_contact=edge.last_contact, session_lapses_at=edge.session_lapses_at
    )


def checkin(*, edge: Edge, report: Mapping[str, Any], now: datetime | None = None) -> Edge:
    """Keeps what an edge says about itself, and gives the edge back with the publish that it should serve now.

    `report` has the checked keys of `contract/checkin.request.json`; `serving.digest` is the proof that people see.
    """
    now = now or timezone.now()
    _follow_replacement(edge, now)
    with transaction.atomic():
        edge = _admitted(edge, now, TokenInvalid(ANOTHER_KEY))
        serving = (report.get("serving") or {}).get("digest", "")
        if serving != edge.serving_digest:
            record_serving(edge.pk, edge.serving_digest, serving, now)
        _record_left_behind(edge, report, now)
        edge.serving_digest = serving
        edge.report = kept(report, now)
        _contact(edge, now, "serving_digest", "report")
    return edge


def current(*, edge: Edge, now: datetime | None = None) -> Edge:
    """The edge with the publish that it should serve now, for one that only asks. Counts as contact."""
    now = now or timezone.now()
    _follow_replacement(edge, now)
    note(edge, now=now)
    return _read(edge.pk)


def record_serving(edge_id: UUID, before: str, after: str, now: datetime) -> None:
    """Adds to an edge's history that it serves something else."""
    detail = {"from": before, "to": after}
    EdgeEvent.objects.create(edge_id=edge_id, kind=EdgeEvent.Kind.SERVING, at=now, detail=detail)


def kept(report: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """A report as it is stored: with when it came, and how far the edge's clock was off (ms)."""
    moment = _milliseconds(now)
    stored = {**report, "at": moment}
    clock = report.get("clock")
    # Positive when the edge's clock is ahead of ours, give or take the way of the message.
    return stored if clock is None else {**stored, "clock_offset": clock - moment}


def _record_left_behind(edge: Edge, report: Mapping[str, Any], now: datetime) -> None:
    """Adds to an edge's history that rows which it had were never shipped, and that it does not have them any more.

    Its log store is another one (the volume was wiped or damaged) or an older copy of the same. Should the rows come
    after all, because the volume is put back, the accounting of the logs sees it: it looks at what has arrived.
    """
    before, told = edge.report.get("logs"), report.get("logs")
    if (
        not before or not told or report["clock"] < edge.report.get("clock", 0)
    ):  # a call that was overtaken says nothing new
        return
    is_copy = before["epoch"] == told["epoch"]
    kept_until = queries.acked(edge, UUID(before["epoch"]))
    if is_copy:
        kept_until = max(kept_until, told["last_sequence"])
    rows = before["last_sequence"] - kept_until
    if rows <= 0:
        return
    held = "an older copy of its log store" if is_copy else "another log store"
    detail = {
        "message": f"{rows:,} rows that it had logged were not sent before it came with {held}.",
        "epoch": before["epoch"],
        "last_sequence": before["last_sequence"],
        "rows": rows,
        "is_copy": is_copy,
    }
    EdgeEvent.objects.create(edge=edge, kind=EdgeEvent.Kind.ROWS_LEFT_BEHIND, at=now, detail=detail)
    logger.warning("edge %s: %s", edge.pk, detail["message"])


def _enrolled(digest: str, jwk: dict[str, str], thumbprint: str, engine: Mapping[str, Any], now: datetime) -> Joined:
    edge = enrolment.join(digest=digest, jwk=jwk, thumbprint=thumbprint, engine=engine, now=now, repeat=REPEAT_WINDOW)
    if edge is None:
        raise JoinTokenUnknown("This join token is not known here: use the newest bundle of the edge.")
    return Joined(edge, sessions.start(edge, now))


def _spend(token: JoinToken, jwk: dict[str, str], thumbprint: str, engine: Mapping[str, Any], now: datetime) -> Edge:
    edge = _locked(token.edge_id)
    sessions.require_admitted(edge)
    # Only columns of this table: with a join the database may check an old copy of the row, and let two in.
    unspent = JoinToken.objects.filter(pk=token.pk, used_at=None, revoked_at=None, expires_at__gt=now)
    if not unspent.update(used_at=now, key_thumbprint=thumbprint):
        token.refresh_from_db()
        _require_repeat(token, edge, thumbprint, now)
    else:
        edge.public_key, edge.key_thumbprint, edge.joined_at = jwk, thumbprint, now
        # What it told of its log store stays, for its first check-in to be held against: the volume may be another.
        edge.report = {"engine": dict(engine), **{name: edge.report[name] for name in ("logs",) if name in edge.report}}
        edge.serving_digest = ""
        EdgeEvent.objects.create(
            edge=edge,
            kind=EdgeEvent.Kind.JOINED,
            at=now,
            detail={"key_thumbprint": thumbprint, "engine": dict(engine)},
        )
    _contact(edge, now, "public_key", "key_thumbprint", "joined_at", "report", "serving_digest")
    return edge


def _require_repeat(token: JoinToken, edge: Edge, thumbprint: str, now: datetime) -> None:
    """Lets the owner of a spent token ask again; raises for everybody else."""
    if token.used_at is None:
        if token.revoked_at:
            raise JoinTokenExpired("A newer bundle was issued for this edge: use that one.")
        raise JoinTokenExpired("This join token is older than 24 hours: reissue the edge's bundle.")
    # The edge's key differs from the token's when it joined again since, with a newer token.
    owns = token.key_thumbprint == thumbprint == edge.key_thumbprint
    if not owns:
        raise JoinTokenUsed("This join token was used with another key: if that was not you, reissue the bundle.")
    if now >= token.used_at + REPEAT_WINDOW:
        raise JoinTokenUsed(
            "This join token was used more than 10 minutes ago: go on with the session it gave, or reissue the bundle."
        )


def _use_once(edge: Edge, assertion: jwts.Assertion) -> None:
    digest = hashlib.sha256(f"{edge.pk} {assertion.jti}".encode()).hexdigest()
    try:
        with transaction.atomic():
            UsedAssertion.objects.create(digest=digest, expires_at=assertion.valid_until)
    except IntegrityError as exc:
        raise InvalidAssertion("This client_assertion was used before: sign a new one with a new jti.") from exc


def _admitted(edge: Edge, now: datetime, stale: NotAuthenticated) -> Edge:
    """The edge as it is now, locked. Raises `EdgeRemoved`, `EdgeBanned`, `SessionExpired`.

    Raises `stale` when it joined with another key since it was read.
    """
    current = _locked(edge.pk)
    sessions.require_admitted(current)
    if current.key_thumbprint != edge.key_thumbprint:
        raise stale
    sessions.require_live(current, now)
    return current


def _read(pk: Any) -> Edge:
    return Edge.objects.select_related("publish__pipeline_version__pipeline").get(pk=pk)


def _locked(pk: Any) -> Edge:
    # Without its publish, which nearly nobody who locks an edge looks at.
    return Edge.objects.select_for_update().get(pk=pk)


def _contact(edge: Edge, now: datetime, *fields: str) -> None:
    _move_contact(edge, now)
    edge.save(update_fields=["last_contact", "session_lapses_at", *fields])


def _move_contact(edge: Edge, now: datetime) -> None:
    # Never backwards: two calls may be handled at once.
    edge.last_contact = max(now, edge.last_contact or now)
    edge.session_lapses_at = edge.last_contact + sessions.SESSION_LIFE


def _follow_replacement(edge: Edge, now: datetime) -> None:
    target = queries.successor_of(edge.publish)
    if target:
        jobs.move_edges(source=edge.publish, target=target, only=[edge], now=now)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _record_refusal(edge_id: Any, kind: EdgeEvent.Kind, refusal: DomainError, now: datetime, **detail: str) -> None:
    logger.warning("edge %s refused: %s", edge_id, refusal.code)
    recent = EdgeEvent.objects.filter(edge_id=edge_id, kind=kind, at__gt=now - REFUSALS_APART)
    if not recent.exists():
        detail = {"code": refusal.code, "message": refusal.message, **detail}
        EdgeEvent.objects.create(edge_id=edge_id, kind=kind, at=now, detail=detail)
