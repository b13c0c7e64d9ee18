"""What state an edge is in, from its own row and the time. No queries here: a list of edges needs one query."""

import dataclasses
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q, TextChoices
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from edges.models import Edge, FleetToken
from publishing.models import Publish

# In check-in intervals. One lost check-in is a hiccup of the network, three are news, ten an outage.
ONLINE_INTERVALS = 3
LATE_INTERVALS = 10
# A weekend's notice before only a new bundle helps.
LAPSING = timedelta(hours=36)


class State(TextChoices):
    NEVER_JOINED = "never joined", _("Never joined")
    ONLINE = "online", _("Online")
    LATE = "late", _("Late")
    OFFLINE = "offline", _("Offline")
    LAPSING = "session lapsing", _("Session lapsing")
    EXPIRED = "expired", _("Expired")
    BANNED = "banned", _("Banned")
    REMOVED = "removed", _("Removed")


class TokenState(TextChoices):
    """Whether devices can still add themselves with a fleet token."""

    OPEN = "open", _("Open")
    USED_UP = "used up", _("Used up")
    EXPIRED = "expired", _("Expired")
    REVOKED = "revoked", _("Revoked")


@dataclasses.dataclass(frozen=True)
class Desired:
    """What an edge should serve, as the contract tells it to engines."""

    publish_id: int
    pipeline: str
    pipeline_version: str
    pipeline_url: str
    digest: str


@dataclasses.dataclass(frozen=True)
class EdgeState:
    """What people are shown: what the edge proved that it serves, beside what it should serve.

    `since` is when the state began, `lapses_at` when only a new bundle will help; `explain` is a sentence or two.
    """

    state: State
    since: datetime
    lapses_at: datetime | None
    should_run: Desired
    serving_digest: str
    is_serving: bool
    explain: str


def desired_of(publish: Publish) -> Desired:
    """What an edge of this publish should serve. `publish` must come with its pipeline version and pipeline."""
    version = publish.pipeline_version
    return Desired(
        publish_id=publish.pk,
        pipeline=version.pipeline.name,
        pipeline_version=str(version.uuid),
        pipeline_url=publish.pipeline_url,
        digest=publish.pipeline_digest,
    )


def edge_state(edge: Edge, now: datetime) -> EdgeState:
    """The state of an edge that was read with its publish, pipeline version and pipeline."""
    state, since = _state(edge, now)
    should_run = desired_of(edge.publish)
    is_serving = bool(edge.serving_digest) and edge.serving_digest == should_run.digest
    return EdgeState(
        state=state,
        since=since,
        lapses_at=edge.session_lapses_at,
        should_run=should_run,
        serving_digest=edge.serving_digest,
        is_serving=is_serving,
        explain=_explain(edge, state, is_serving, should_run),
    )


def token_state(token: FleetToken, now: datetime) -> TokenState:
    """The state of a fleet token."""
    if token.revoked_at:
        return TokenState.REVOKED
    if token.made >= token.max_edges:
        return TokenState.USED_UP
    return TokenState.OPEN if token.expires_at > now else TokenState.EXPIRED


def in_state(state: State, now: datetime) -> Q:
    """The edges that `edge_state` finds in this state."""
    interval = timedelta(seconds=settings.EDGE_CHECKIN_SECONDS)
    late, offline = now - ONLINE_INTERVALS * interval, now - LATE_INTERVALS * interval
    removed, banned = Q(removed_at__isnull=False), Q(banned_at__isnull=False)
    joined = ~removed & ~banned & Q(joined_at__isnull=False)
    live = joined & Q(session_lapses_at__gt=now + LAPSING)
    return {
        State.REMOVED: removed,
        State.BANNED: ~removed & banned,
        State.NEVER_JOINED: ~removed & ~banned & Q(joined_at=None),
        State.EXPIRED: joined & Q(session_lapses_at__lte=now),
        State.LAPSING: joined & Q(session_lapses_at__gt=now, session_lapses_at__lte=now + LAPSING),
        State.ONLINE: live & Q(last_contact__gte=late),
        State.LATE: live & Q(last_contact__lt=late, last_contact__gte=offline),
        State.OFFLINE: live & Q(last_contact__lt=offline),
    }[state]


def _state(edge: Edge, now: datetime) -> tuple[State, datetime]:
    if edge.removed_at:
        return State.REMOVED, edge.removed_at
    if edge.banned_at:
        return State.BANNED, edge.banned_at
    contact, lapses_at = edge.last_contact, edge.session_lapses_at
    if edge.joined_at is None or contact is None or lapses_at is None:
        return State.NEVER_JOINED, edge.created_at
    if lapses_at <= now:
        return State.EXPIRED, lapses_at
    if lapses_at <= now + LAPSING:
        return State.LAPSING, contact
    interval = timedelta(seconds=settings.EDGE_CHECKIN_SECONDS)
    if contact >= now - ONLINE_INTERVALS * interval:
        return State.ONLINE, contact
    return (State.LATE if contact >= now - LATE_INTERVALS * interval else State.OFFLINE), contact


def _explain(edge: Edge, state: State, is_serving: bool, should_run: Desired) -> str:
    contact = f"{edge.last_contact:%Y-%m-%d %H:%M} UTC" if edge.last_contact else ""
    lapses = f"{edge.session_lapses_at:%Y-%m-%d %H:%M} UTC" if edge.session_lapses_at else ""
    match state:
        case State.REMOVED:
            return gettext("It was removed; its logs and history stay.")
        case State.BANNED:
            return gettext("It is banned: everything it sends is refused until the ban is lifted.")
        case State.NEVER_JOINED:
            return gettext(
                "It has not joined yet: start its engine with the bundle; reissue the bundle if it is lost or old."
            )
        case State.EXPIRED:
            ended = gettext(
                "Its session ended at %(time)s, 7 days after its last contact: start it with a reissued bundle."
            )
            return ended % {"time": lapses}
        case State.LAPSING | State.OFFLINE | State.LATE:
            silent = gettext(
                "No contact since %(contact)s. It goes on serving from its own store; "
                "after %(lapses)s it needs a new bundle."
            )
            told = {"contact": contact, "lapses": lapses}
            return f"{silent % told} {_serving(edge, is_serving, should_run)}"
    return _serving(edge, is_serving, should_run)


def _serving(edge: Edge, is_serving: bool, should_run: Desired) -> str:
    if is_serving:
        return gettext("It serves what it should.")
    told = {"publish": should_run.publish_id, "pipeline": should_run.pipeline}
    update = edge.report.get("update") or {}
    if update.get("state") == "failed":
        told["reason"] = update.get("error") or gettext("it gave no reason")
        return gettext("It could not take up publish %(publish)s (%(pipeline)s): %(reason)s.") % told
    if update.get("state") == "pulling":
        return gettext("It is pulling publish %(publish)s (%(pipeline)s).") % told
    if update.get("state") == "warming":
        return gettext("It is warming publish %(publish)s (%(pipeline)s).") % told
    if not edge.serving_digest:
        return gettext("It joined and has not reported yet that it serves publish %(publish)s (%(pipeline)s).") % told
    waits = gettext(
        "It still serves an earlier publish and will take up publish %(publish)s (%(pipeline)s) "
        "after its next check-in."
    )
    return waits % told
