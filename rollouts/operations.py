"""What people do with rollouts. Each verb authorises its actor, is one short transaction, and refuses by raising."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from catalog.models import Role, User
from common.errors import Invalid
from edges import queries as edges
from edges.errors import NotPublished, PublishReplaced
from publishing.models import Publish
from rollouts import plans, queries, tasks, windows
from rollouts.errors import EdgesInRollout, NotNow
from rollouts.models import BACKWARD, ENDED, FORWARD, Bucket, Rollout, RolloutEvent, RolloutGroup, RolloutMember, State
from rollouts.plans import Plan, Strategy

Kind = RolloutEvent.Kind
MEMBERS_AT_ONCE = 1000


def preview(
    *, actor: User, publish: int, replaces: Sequence[int], strategy: Strategy, now: datetime | None = None
) -> Plan:
    """What a rollout would do, with the bytes that each edge must fetch. Refuses what `create` refuses."""
    target, replaced = _publishes(actor, publish, replaces)
    _check(strategy)
    _require_apart(target, replaced)
    return plans.make(target, replaced, strategy, now or timezone.now())


def create(
    *, actor: User, publish: int, replaces: Sequence[int], strategy: Strategy, now: datetime | None = None
) -> Rollout:
    """A rollout of a publish to the edges that the replaced publishes have now; it begins at once. Collaborators only.

    Raises `NotFound`, `Forbidden`, `Invalid`, `NotPublished`, `PublishReplaced`, `NoEdges`, `EdgesInRollout`.
    """
    now = now or timezone.now()
    target, replaced = _publishes(actor, publish, replaces)
    window = _check(strategy)
    try:
        with transaction.atomic():
            # In the order of their keys, so that of two creations at once the second sees what the first has made.
            ids = sorted({target.pk, *(old.pk for old in replaced)})
            list(Publish.objects.select_for_update().filter(pk__in=ids).order_by("pk"))
            _require_apart(target, replaced)
            plan = plans.make(target, replaced, strategy, now)
            rollout = Rollout.objects.create(
                publish=target,
                created_by=actor,
                created_at=now,
                max_in_flight=plan.max_in_flight,
                success_percent=strategy.success_percent,
                error_percent=strategy.error_percent,
                healthy_seconds=strategy.healthy_seconds,
                answer_seconds=strategy.answer_seconds,
                auto_rollback=strategy.auto_rollback,
                window=window,
                deadline=now + timedelta(hours=strategy.hours),
            )
            rollout.replaced.set(replaced)
            _add_members(rollout, plan, now)
            _record(rollout, Kind.CREATED, actor, now, edges=len(plan.edges), bytes=plan.bytes_to_fetch)
            _wake(rollout)
    except IntegrityError as exc:
        other = _in_another(replaced)
        if other is None:
            raise
        raise other from exc
    return queries.rollout_for(actor, rollout.pk)


def pause(*, actor: User, rollout: Rollout, reason: str = "", now: datetime | None = None) -> Rollout:
    """Moves no further edge until `resume`; those on their way arrive. Collaborators only. Raises `NotNow`."""
    return _change(actor, rollout, (State.PENDING, State.RUNNING), State.PAUSED, Kind.PAUSED, reason, now)


def resume(*, actor: User, rollout: Rollout, now: datetime | None = None) -> Rollout:
    """Goes on. Failures until now are forgiven: thresholds count from here on. Collaborators only. Raises `NotNow`."""
    return _change(actor, rollout, (State.PAUSED,), State.RUNNING, Kind.RESUMED, "", now)


def abort(
    *, actor: User, rollout: Rollout, rollback: bool = False, reason: str = "", now: datetime | None = None
) -> Rollout:
    """Stops for good. Edges that did not prove the target go back to what they ran; with `rollback`, all of them.

    An abort can still be turned into a rollback while it is under way. Collaborators only. Raises `NotNow`.
    """
    if rollback:
        allowed: tuple[State, ...] = (*FORWARD, State.ABORTING)
        return _change(actor, rollout, allowed, State.ROLLING_BACK, Kind.ROLLBACK, reason, now)
    return _change(actor, rollout, FORWARD, State.ABORTING, Kind.ABORTED, reason, now)


def _publishes(actor: User, publish: int, replaces: Sequence[int]) -> tuple[Publish, list[Publish]]:
    target = queries.publish_for(actor, publish, Role.COLLABORATOR)
    replaced = [queries.publish_for(actor, pk, Role.COLLABORATOR) for pk in dict.fromkeys(replaces)]
    if not replaced:
        raise Invalid(_("Name at least one publish to replace."))
    if target in replaced:
        raise Invalid(_("Publish %(target)s cannot replace itself.") % {"target": target.pk})
    return target, replaced


def _check(strategy: Strategy) -> dict[str, object] | None:
    if not (1 <= strategy.success_percent <= 100 and 0 <= strategy.error_percent <= 100):
        raise Invalid(_("success_percent is from 1 to 100, error_percent from 0 to 100."))
    if not (0 <= strategy.healthy_seconds <= 86_400 and 60 <= strategy.answer_seconds <= 604_800):
        raise Invalid(_("healthy_seconds is at most a day (86400), answer_seconds from 60 to a week (604800)."))
    if not 1 <= strategy.hours <= 2160:
        raise Invalid(_("hours, after which the rollout ends in any case, is from 1 to 2160."))
    return windows.checked(strategy.window)


def _require_apart(target: Publish, replaced: list[Publish]) -> None:
    """Refuses publishes that cannot be run, that were replaced before, or that another rollout is at."""
    for publish in (target, *replaced):
        if publish.status != Publish.Status.PUBLISHED:
            raise NotPublished(
                _("Publish %(publish)s is %(status)s: only a Published one can be rolled out.")
                % {"publish": publish.pk, "status": publish.status}
            )
        successor = edges.successor_of(publish)
        if successor:
            raise PublishReplaced(
                _("Publish %(publish)s was replaced by publish %(successor)s: name that one, or publish again.")
                % {"publish": publish.pk, "successor": successor.pk},
                publish_id=successor.pk,
            )
    other = _in_another(replaced, target)
    if other:
        raise other


def _in_another(replaced: list[Publish], target: Publish | None = None) -> EdgesInRollout | None:
    concerns = Q(replaced__in=replaced) | Q(publish__in=replaced)
    if target:
        concerns |= Q(replaced=target)
    other = (
        Rollout.objects.exclude(state__in=ENDED).filter(concerns).order_by("pk").values_list("pk", flat=True).first()
    )
    if other is None and target is None:
        moving = RolloutMember.objects.filter(active=True, edge__publish__in=replaced).order_by("pk")
        other = moving.values_list("rollout", flat=True).first()
    if other is None:
        return None
    return EdgesInRollout(
        _("Rollout %(rollout)s is moving edges of these publishes: wait until it has ended, or abort it.")
        % {"rollout": other},
        rollout_id=other,
    )


def _add_members(rollout: Rollout, plan: Plan, now: datetime) -> None:
    groups = [
        RolloutGroup(rollout=rollout, order=planned.order, selector=dict(planned.selector)) for planned in plan.groups
    ]
    made = RolloutGroup.objects.bulk_create(groups)
    members = (
        RolloutMember(
            rollout=rollout,
            group=group,
            edge_id=edge.edge,
            previous_id=edge.previous,
            since=now,
            bytes_to_fetch=edge.bytes_to_fetch,
        )
        for group, planned in zip(made, plan.groups, strict=True)
        for edge in planned.edges
    )
    RolloutMember.objects.bulk_create(members, batch_size=MEMBERS_AT_ONCE)


def _change(
    actor: User,
    rollout: Rollout,
    allowed: Sequence[State],
    state: State,
    kind: RolloutEvent.Kind,
    reason: str,
    now: datetime | None,
) -> Rollout:
    now = now or timezone.now()
    queries.rollout_for(actor, rollout.pk, Role.COLLABORATOR)
    with transaction.atomic():
        locked = Rollout.objects.select_for_update().get(pk=rollout.pk)
        if locked.state not in allowed:
            raise NotNow(
                _("Rollout %(rollout)s is %(state)s, so this cannot be done.")
                % {"rollout": locked.pk, "state": str(State(locked.state).label).lower()},
                state=locked.state,
            )
        locked.state, locked.reason = state, reason[:500]
        if state in BACKWARD:
            locked.ends_as = State.ROLLED_BACK if state == State.ROLLING_BACK else State.ABORTED
        if state == State.RUNNING:
            _forgive(locked, now)
        locked.save(update_fields=["state", "reason", "ends_as", "started_at"])
        _record(locked, kind, actor, now, reason=reason[:500])
        _wake(locked)
    return queries.rollout_for(actor, rollout.pk)


def _forgive(rollout: Rollout, now: datetime) -> None:
    rollout.started_at = rollout.started_at or now
    for group in rollout.groups.filter(passed_at=None, opened_at__isnull=False):
        group.forgiven = group.members.filter(bucket=Bucket.FAILED).count()
        group.save(update_fields=["forgiven"])


def _record(rollout: Rollout, kind: RolloutEvent.Kind, actor: User, now: datetime, **detail: object) -> None:
    RolloutEvent.objects.create(rollout=rollout, kind=kind, actor=actor, at=now, detail=detail)


def _wake(rollout: Rollout) -> None:
    """After the commit. A broker that is down fails nobody: the message is only a hint, beat comes by."""
    transaction.on_commit(partial(tasks.advance_rollout.delay, rollout.pk), robust=True)
