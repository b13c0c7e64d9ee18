"""How a device becomes an edge by itself: it joins with a fleet token."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction

from edges import patterns, queries, sessions
from edges.errors import JoinTokenExpired, JoinTokenUsed
from edges.models import Assignment, Edge, EdgeEvent, FleetToken

# Names that people gave away already are passed over. So many in a row are no accident.
TAKEN_IN_A_ROW = 1000


def join(
    *,
    digest: str,
    jwk: Mapping[str, str],
    thumbprint: str,
    engine: Mapping[str, Any],
    now: datetime,
    repeat: timedelta,
) -> Edge | None:
    """The edge of a device that joined with the fleet token of this digest; None when there is no such token.

    A key gets one edge, and may ask again within `repeat`. However many join at once, no more edges are made than the
    token allows, because they take turns. Raises `JoinTokenExpired`, `JoinTokenUsed`, `EdgeRemoved`, `EdgeBanned`.
    """
    with transaction.atomic():
        token = FleetToken.objects.select_for_update(of=("self",)).filter(digest=digest).first()
        if token is None:
            return None
        edge = _edge_with(token, thumbprint)
        if edge is None:
            _require_usable(token, now)
            edge = _made(token, jwk, thumbprint, engine, now)
        else:
            _require_repeat(edge, thumbprint, now - repeat)
            edge.last_contact = max(now, edge.last_contact or now)
            edge.session_lapses_at = edge.last_contact + sessions.SESSION_LIFE
            edge.save(update_fields=["last_contact", "session_lapses_at"])
    return edge


def _edge_with(token: FleetToken, thumbprint: str) -> Edge | None:
    return Edge.objects.select_for_update().filter(fleet_token=token, joined_with=thumbprint).first()


def _require_repeat(edge: Edge, thumbprint: str, since: datetime) -> None:
    sessions.require_admitted(edge)
    # Another key when people reissued its bundle since.
    if edge.key_thumbprint != thumbprint or edge.joined_at is None or edge.joined_at <= since:
        raise JoinTokenUsed(
            "This key joined with this fleet token more than 10 minutes ago: go on with the session it gave, "
            "or reissue the bundle of its edge."
        )


def _require_usable(token: FleetToken, now: datetime) -> None:
    if token.revoked_at:
        raise JoinTokenExpired("This fleet token was revoked: ask the people who run the center for another.")
    if token.expires_at <= now:
        raise JoinTokenExpired("This fleet token is over: ask the people who run the center for another.")
    if token.made >= token.max_edges:
        raise JoinTokenUsed(f"This fleet token has made all its {token.max_edges} edges: ask for another.")


def _made(token: FleetToken, jwk: Mapping[str, str], thumbprint: str, engine: Mapping[str, Any], now: datetime) -> Edge:
    publish = queries.successor_of(token.publish) or token.publish
    for number in range(token.next_number, token.next_number + TAKEN_IN_A_ROW):
        edge = Edge(
            name=patterns.name_of(token.pattern, number),
            tags=token.tags,
            cpus=token.cpus,
            memory=token.memory,
            publish=publish,
            created_by_id=token.created_by_id,
            created_at=now,
            fleet_token=token,
            joined_with=thumbprint,
            public_key=dict(jwk),
            key_thumbprint=thumbprint,
            joined_at=now,
            last_contact=now,
            session_lapses_at=now + sessions.SESSION_LIFE,
            report={"engine": dict(engine)},
        )
        if _stored(edge):
            token.made, token.next_number = token.made + 1, number + 1
            token.save(update_fields=["made", "next_number"])
            _record(token, edge, engine, now)
            return edge
    raise JoinTokenUsed(f"The next {TAKEN_IN_A_ROW} names of this fleet token are in use: ask for another.")


def _stored(edge: Edge) -> bool:
    """Whether its name was free."""
    try:
        with transaction.atomic():
            edge.save(force_insert=True)
    except IntegrityError:
        if Edge.objects.filter(name=edge.name, removed_at=None).exists():
            return False
        raise
    return True


def _record(token: FleetToken, edge: Edge, engine: Mapping[str, Any], now: datetime) -> None:
    Assignment.objects.create(edge=edge, publish=edge.publish, since=now)
    added = {"publish": edge.publish_id, "fleet_token": token.pk}
    joined = {"key_thumbprint": edge.key_thumbprint, "engine": dict(engine), "fleet_token": token.pk}
    EdgeEvent.objects.bulk_create(
        [
            EdgeEvent(edge=edge, kind=EdgeEvent.Kind.ADDED, at=now, detail=added),
            EdgeEvent(edge=edge, kind=EdgeEvent.Kind.JOINED, at=now, detail=joined),
        ]
    )
