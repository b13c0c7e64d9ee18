"""Advancing rollouts: look at what edges prove, decide, move the next ones. Any step may be cut off or repeated.

`advance` runs every few seconds. Its cost is a handful of queries and one a batch of edges that changed.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import groupby
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from edges import assignments
from publishing.models import Publish
from rollouts import gates, proof, sights, windows
from rollouts.gates import Gate
from rollouts.leases import LeaseLost, Turn
from rollouts.models import BACKWARD, ENDED, FORWARD, Bucket, Rollout, RolloutEvent, RolloutGroup, RolloutMember, State
from rollouts.proof import Sight, Terms

logger = logging.getLogger(__name__)

# Edges that change in one transaction: few enough that a check-in never waits long for its row.
BATCH = 500
CHANGING = ["bucket", "since", "reason", "on_target", "moved_at", "told_at", "healthy_since"]
WATCHED_BACKWARD = (Bucket.REVERTING, Bucket.OFFLINE, Bucket.STUCK)

Seen = tuple[RolloutMember, Sight]
Change = tuple[tuple[str, object], ...]
Changes = dict[Change, list[int]]


def live_rollouts() -> list[int]:
    """The ids of the rollouts that have not ended, oldest first."""
    return list(Rollout.objects.exclude(state__in=ENDED).order_by("pk").values_list("pk", flat=True))


def advance(rollout_id: int, now: datetime) -> bool:
    """Brings a rollout as far as it can come now. False when it has ended or another worker is at it."""
    turn = Turn(rollout_id, now)
    if not turn.take():
        return False
    try:
        _observe(turn)
        _steer(turn)
        while _move(turn):
            _steer(turn)
    except LeaseLost:
        logger.warning("rollout %d: this worker was too slow, another one went on", rollout_id)
    finally:
        turn.release()
    return True


def _observe(turn: Turn) -> None:
    """Puts every member that is on its way where its edge's last check-in proves that it belongs."""
    rollout = Rollout.objects.select_related("publish").get(pk=turn.rollout_id)
    terms = Terms(timedelta(seconds=rollout.healthy_seconds), timedelta(seconds=rollout.answer_seconds))
    previous = dict(rollout.replaced.values_list("pk", "pipeline_digest"))
    forward = Q(on_target=True, bucket__in=[Bucket.IN_FLIGHT, Bucket.OFFLINE, Bucket.GONE, Bucket.FAILED])
    backward = Q(on_target=False, moved_at__isnull=False, bucket__in=WATCHED_BACKWARD)
    now = turn.now
    changes: Changes = {}
    for member, sight in sights.seen(rollout.members.filter(forward | backward), now):
        before = _values(member)
        if member.on_target:
            proof.judge_forward(member, sight, (rollout.publish_id, rollout.publish.pipeline_digest), terms, now)
        else:
            target = (member.previous_id, previous[member.previous_id])
            proof.judge_backward(member, sight, target, terms, now)
        _note(changes, member, before)
    for values, members in changes.items():
        for start in range(0, len(members), BATCH):
            with turn.step():
                _write(values, members[start : start + BATCH])


def _values(member: RolloutMember) -> dict[str, object]:
    return {name: getattr(member, name) for name in CHANGING}


def _note(changes: Changes, member: RolloutMember, before: dict[str, object]) -> None:
    """Gathers members by what changed, because thousands usually change alike and can then be written at once."""
    changed = tuple((name, value) for name, value in _values(member).items() if value != before[name])
    if changed:
        changes.setdefault(changed, []).append(member.pk)


def _write(values: Change, members: list[int]) -> None:
    RolloutMember.objects.filter(pk__in=members).update(**dict(values))


def _steer(turn: Turn) -> None:
    """Decides what the counts and the clock decide: start, open and pass groups, stop, end."""
    with turn.step() as rollout:
        now = turn.now
        if rollout.state == State.PENDING:
            rollout.started_at = now
            _enter(rollout, State.RUNNING, now, RolloutEvent.Kind.STARTED)
        if rollout.state in FORWARD and now >= rollout.deadline:
            rollout.ends_as = State.FAILED
            _enter(rollout, State.ABORTING, now, RolloutEvent.Kind.DEADLINE, "Its time was over before it was done.")
        if rollout.state == State.RUNNING:
            _pass_groups(rollout, now)
        elif rollout.state in BACKWARD:
            _end_when_back(rollout, now)


def _pass_groups(rollout: Rollout, now: datetime) -> None:
    counts = counts_by_group(rollout)
    for group in rollout.groups.filter(passed_at=None):
        if group.opened_at is None:
            group.opened_at = now
            record(rollout, RolloutEvent.Kind.GROUP_OPENED, now, group=group.order)
        verdict = gates.judge(
            counts.get(group.pk, {}),
            forgiven=group.forgiven,
            success_percent=rollout.success_percent,
            error_percent=rollout.error_percent,
        )
        if verdict.gate is Gate.PASSED:
            group.passed_at = now
            record(rollout, RolloutEvent.Kind.GROUP_PASSED, now, group=group.order, counts=counts.get(group.pk, {}))
        group.save(update_fields=["opened_at", "passed_at"])
        if verdict.gate is Gate.TRIPPED:
            _trip(rollout, group, verdict.reason, now)
        if verdict.gate is not Gate.PASSED:
            return
    if not any(found.get(Bucket.IN_FLIGHT) for found in counts.values()):
        _succeed(rollout, now)


def _trip(rollout: Rollout, group: RolloutGroup, reason: str, now: datetime) -> None:
    reason = f"Group {group.order}: {reason}"
    record(rollout, RolloutEvent.Kind.TOO_MANY_ERRORS, now, group=group.order, reason=reason)
    if rollout.auto_rollback:
        rollout.ends_as = State.ROLLED_BACK
        _enter(rollout, State.ROLLING_BACK, now, RolloutEvent.Kind.ROLLBACK, reason)
    else:
        _enter(rollout, State.PAUSED, now, RolloutEvent.Kind.PAUSED, reason)


def _succeed(rollout: Rollout, now: datetime) -> None:
    """From now on the target counts as the replacement: whatever comes back on an old publish goes straight to it."""
    rollout.publish.replaces.add(*rollout.replaced.all())
    _end(rollout, State.SUCCEEDED, "", now)


def _end_when_back(rollout: Rollout, now: datetime) -> None:
    if _to_take_back(rollout).exists() or rollout.members.filter(bucket=Bucket.REVERTING).exists():
        return
    stuck = rollout.members.filter(bucket=Bucket.STUCK).count()
    if stuck:
        proofless = f"{stuck} edges did not prove that they serve their previous publish."
        _end(rollout, State.FAILED, f"{rollout.reason} {proofless}".strip(), now)
    else:
        _end(rollout, State(rollout.ends_as), rollout.reason, now)


def _end(rollout: Rollout, state: State, reason: str, now: datetime) -> None:
    rollout.ended_at = now
    rollout.members.update(active=False)
    _enter(rollout, state, now, RolloutEvent.Kind.ENDED, reason)
    logger.info("rollout %d ended: %s", rollout.pk, state.value)


def _enter(rollout: Rollout, state: State, now: datetime, kind: RolloutEvent.Kind, reason: str = "") -> None:
    rollout.state, rollout.reason = state, reason[:500]
    rollout.save(update_fields=["state", "reason", "ends_as", "started_at", "ended_at"])
    record(rollout, kind, now, state=state.value, reason=reason)


def record(rollout: Rollout, kind: RolloutEvent.Kind, now: datetime, **detail: object) -> None:
    """Adds to a rollout's history what the center did by itself."""
    RolloutEvent.objects.create(rollout=rollout, kind=kind, at=now, detail=detail)


def counts_by_group(rollout: Rollout) -> dict[int, dict[str, int]]:
    """Members by bucket, by the group's id. One query."""
    rows = rollout.members.order_by().values_list("group", "bucket").annotate(total=Count("pk"))
    found: dict[int, dict[str, int]] = {}
    for group, bucket, total in rows:
        found.setdefault(group, {})[bucket] = total
    return found


def _move(turn: Turn) -> bool:
    """Moves a batch of edges. Whether there may be something to decide or to move again."""
    with turn.step() as rollout:
        if rollout.state in BACKWARD:
            return _take_back(rollout, turn)
        if rollout.state != State.RUNNING:
            return False
        group, now = rollout.groups.filter(passed_at=None).first(), turn.now
        if _admit_returned(rollout, now):
            return True
        if group is None or not _keep_window(rollout, group, now):
            return False
        # One time for both, or an edge that falls silent in between would be neither here nor there.
        return _send_absent(rollout, group, turn, now) or _send(rollout, group, turn, now)


def _keep_window(rollout: Rollout, group: RolloutGroup, now: datetime) -> bool:
    is_open = windows.is_open(rollout.window, now)
    held, waiting = group.members.filter(bucket=Bucket.HELD), group.members.filter(bucket=Bucket.WAITING)
    if is_open:
        held.update(bucket=Bucket.WAITING, since=now, reason="")
    else:
        waiting.update(bucket=Bucket.HELD, since=now, reason="It waits for its maintenance window.")
    return is_open


def _admit_returned(rollout: Rollout, now: datetime) -> bool:
    """Edges that came back take the target by themselves; they get the next free places, so that they are counted."""
    absent = Q(bucket__in=[Bucket.OFFLINE, Bucket.GONE], on_target=True)
    returned = sights.can_answer(rollout.members.filter(absent), now).order_by("pk")[: _free(rollout)]
    found = RolloutMember.objects.filter(pk__in=list(returned.values_list("pk", flat=True)[:BATCH]))
    return found.update(bucket=Bucket.IN_FLIGHT, since=now, reason="") > 0


def _free(rollout: Rollout) -> int:
    return max(0, rollout.max_in_flight - rollout.members.filter(bucket=Bucket.IN_FLIGHT).count())


def _send_absent(rollout: Rollout, group: RolloutGroup, turn: Turn, now: datetime) -> bool:
    """Points edges that cannot answer at the target at once: they take it when they return, and block nobody."""
    waiting = sights.can_answer(group.members.filter(bucket=Bucket.WAITING), now, False)
    return _point(rollout, waiting, BATCH, turn, _sent_absent)


def _send(rollout: Rollout, group: RolloutGroup, turn: Turn, now: datetime) -> bool:
    free = _free(rollout)
    if not free:
        return False
    waiting = sights.can_answer(group.members.filter(bucket=Bucket.WAITING), now)
    return _point(rollout, waiting, min(free, BATCH), turn, _sent)


def _sent(member: RolloutMember, sight: Sight, now: datetime) -> None:
    proof.put(member, Bucket.IN_FLIGHT, now)


def _sent_absent(member: RolloutMember, sight: Sight, now: datetime) -> None:
    proof.put_absent(member, sight, now)


def _point(
    rollout: Rollout,
    members: QuerySet[RolloutMember],
    most: int,
    turn: Turn,
    sent: Callable[[RolloutMember, Sight, datetime], None],
) -> bool:
    """Points members at the target. Those that are not on their previous publish any more are gone."""
    found = list(sights.seen(members.order_by("pk")[:most], turn.now))
    before = {member.pk: _values(member) for member, _ in found}
    moved = _assign(rollout, found, lambda previous: (previous, rollout.publish), turn.now)
    now = turn.now  # later than any check-in that was answered before the edges were locked
    for member, sight in found:
        if member.edge_id in moved:
            member.on_target, member.moved_at, member.told_at, member.healthy_since = True, now, None, None
            sent(member, sight, now)
        else:
            _lose(member, sight, now)
    _save(found, before)
    return bool(found)


def _take_back(rollout: Rollout, turn: Turn) -> bool:
    """Points what must not stay on the target back at what it ran before."""
    found = list(sights.seen(_to_take_back(rollout).order_by("pk")[:BATCH], turn.now))
    before = {member.pk: _values(member) for member, _ in found}
    moved = _assign(rollout, found, lambda previous: (rollout.publish, previous), turn.now)
    now = turn.now
    for member, sight in found:
        member.on_target = False
        if member.edge_id not in moved:
            _lose(member, sight, now)
            continue
        member.moved_at, member.told_at, member.healthy_since = now, None, None
        if sight.absent:
            proof.put_absent(member, sight, now)
        else:
            proof.put_on_way_back(member, now)
    _save(found, before)
    return bool(found)


def _to_take_back(rollout: Rollout) -> QuerySet[RolloutMember]:
    """An abort leaves on the target only what proved that it serves it; a rollback leaves nothing."""
    members = rollout.members.filter(on_target=True)
    return members if rollout.state == State.ROLLING_BACK else members.exclude(bucket=Bucket.DONE)


def _save(found: list[Seen], before: dict[int, dict[str, object]]) -> None:
    changes: Changes = {}
    for member, _ in found:
        _note(changes, member, before[member.pk])
    for values, members in changes.items():
        _write(values, members)


def _lose(member: RolloutMember, sight: Sight, now: datetime) -> None:
    moved = f"It was moved to publish {sight.publish_id}."
    proof.put(member, Bucket.GONE, now, sight.absent if sight.is_removed else moved)


def _assign(
    rollout: Rollout, found: list[Seen], ends: Callable[[Publish], tuple[Publish, Publish]], now: datetime
) -> set[UUID]:
    """Moves edges from one end to the other, by what each ran before; the ids of those that were still at the one."""
    publishes = {publish.pk: publish for publish in rollout.replaced.all()}
    members = sorted((member for member, _ in found), key=lambda member: member.previous_id)
    moved: set[UUID] = set()
    for previous, of_previous in groupby(members, key=lambda member: member.previous_id):
        source, target = ends(publishes[previous])
        edges = [member.edge_id for member in of_previous]
        moved |= assignments.assign(edges=edges, source=source, target=target, now=now, detail={"rollout": rollout.pk})
    return moved
