"""What an edge's last check-in proves about its way to a publish, or back. Pure: a member and a sight of its edge.

Only a digest in memory that was reported after the move counts. A report that came before the edge could know of the
move says nothing about it, and a failure counts from the second check-in on: the first one tells the edge.
"""

import dataclasses
from datetime import datetime, timedelta

from rollouts.models import Bucket, RolloutMember

IDLE, UPDATE_FAILED = "idle", "failed"  # contract/checkin.request.json, `update.state`
REASON_LENGTH = 500
ONLINE = ""


@dataclasses.dataclass(frozen=True)
class Sight:
    """An edge as it was last seen. `absent` says why it cannot answer now; it is empty for one in contact."""

    publish_id: int
    digest: str
    reported_at: datetime | None
    update: str
    error: str
    contact: datetime | None
    absent: str
    is_shut_out: bool
    is_removed: bool


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a rollout asks of its edges."""

    healthy: timedelta
    answer: timedelta


def put(member: RolloutMember, bucket: Bucket, now: datetime, reason: str = "") -> None:
    """Puts a member into a bucket."""
    if member.bucket != bucket:
        member.bucket, member.since = bucket, now
    member.reason = reason[:REASON_LENGTH]


def put_absent(member: RolloutMember, sight: Sight, now: datetime) -> None:
    """Puts a member whose edge is not in contact where it waits for nobody."""
    member.healthy_since = None
    put(member, Bucket.GONE if sight.is_shut_out else Bucket.OFFLINE, now, sight.absent)


def put_on_way_back(member: RolloutMember, now: datetime) -> None:
    """Puts a member whose edge was pointed back; why it failed stays, for whoever asks why all went back."""
    put(member, Bucket.REVERTING, now, member.reason if member.bucket == Bucket.FAILED else "")


def judge_forward(member: RolloutMember, sight: Sight, target: tuple[int, str], terms: Terms, now: datetime) -> None:
    """Moves on a member that was pointed at the target (id and digest)."""
    if _left(member, sight, target[0], now):
        return
    if _is_news(member, sight):
        if sight.digest == target[1] and sight.update == IDLE:
            if _is_healthy(member, sight, terms, now):
                put(member, Bucket.DONE, now)
                return
        else:
            member.healthy_since = None
            if _knows(member, sight) and sight.update == UPDATE_FAILED:
                put(member, Bucket.FAILED, now, sight.error or "The edge reports that its update failed.")
                return
        # Our own time, which is later than the report's: what many members have in common is written at once.
        member.told_at = member.told_at or now
    if member.bucket == Bucket.FAILED:
        return
    if sight.absent:
        put_absent(member, sight, now)
    elif member.bucket == Bucket.IN_FLIGHT and member.healthy_since is None and _is_late(member, sight, terms, now):
        put(member, Bucket.FAILED, now, "It is in contact, but did not prove in time that it serves the target.")


def judge_backward(member: RolloutMember, sight: Sight, previous: tuple[int, str], terms: Terms, now: datetime) -> None:
    """Moves on a member that was pointed back at its previous publish (id and digest).

    A failed update is no obstacle: what counts is that the old digest is in memory and nothing is under way.
    """
    if _left(member, sight, previous[0], now):
        return
    if _is_news(member, sight):
        if _knows(member, sight) and sight.digest == previous[1] and sight.update in (IDLE, UPDATE_FAILED):
            put(member, Bucket.REVERTED, now, member.reason if member.bucket == Bucket.REVERTING else "")
            return
        member.told_at = member.told_at or now
    if member.bucket != Bucket.REVERTING:
        return
    if sight.absent:
        put_absent(member, sight, now)
    elif _is_late(member, sight, terms, now):
        put(member, Bucket.STUCK, now, sight.error or "It did not prove in time that it serves its previous publish.")


def _left(member: RolloutMember, sight: Sight, expected: int, now: datetime) -> bool:
    """Whether the edge is no longer this rollout's: it was removed, or somebody else moved it."""
    if not sight.is_removed and sight.publish_id == expected:
        return False
    member.on_target = False
    put(member, Bucket.GONE, now, sight.absent if sight.is_removed else f"It was moved to publish {sight.publish_id}.")
    return True


def _is_news(member: RolloutMember, sight: Sight) -> bool:
    return bool(sight.reported_at and member.moved_at and sight.reported_at > member.moved_at)


def _knows(member: RolloutMember, sight: Sight) -> bool:
    return bool(member.told_at and sight.reported_at and sight.reported_at > member.told_at)


def _is_healthy(member: RolloutMember, sight: Sight, terms: Terms, now: datetime) -> bool:
    """Whether the edge reported the target again after it had served it for long enough."""
    assert sight.reported_at is not None
    begun = member.healthy_since or sight.reported_at
    member.healthy_since = member.healthy_since or now
    return sight.reported_at - begun >= terms.healthy


def _is_late(member: RolloutMember, sight: Sight, terms: Terms, now: datetime) -> bool:
    """Whether an edge that talked to us since it moved has had its time."""
    return bool(member.since + terms.answer <= now and sight.contact and sight.contact > member.since)
