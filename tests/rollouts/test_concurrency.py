"""What happens at once, by threads with connections of their own, on the database that is configured."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from catalog.models import User
from edges.models import Assignment, Edge
from publishing.models import Publish
from rollouts import jobs, operations
from rollouts.models import Rollout, RolloutMember, State
from rollouts.plans import Strategy
from tests.edges.test_concurrency import at_once
from tests.rollouts.conftest import Fleet, buckets

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_database")]
MakeFleet = Callable[..., Fleet]
RollOut = Callable[..., Rollout]


def test_of_workers_at_once_one_advances(make_fleet: MakeFleet, roll_out: RollOut, new: Publish) -> None:
    fleet = make_fleet(20)
    rollout = roll_out(fleet, max_in_flight="5")
    results = at_once(*[lambda: jobs.advance(rollout.pk, fleet.now)] * 6)
    assert True in results
    assert buckets(rollout) == {"in_flight": 5, "waiting": 15}
    assert new.edges.count() == Assignment.objects.filter(publish=new).count() == 5


def test_workers_at_once_all_the_way_move_every_edge_once(
    make_fleet: MakeFleet, roll_out: RollOut, new: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 3)
    fleet = make_fleet(8)
    rollout = roll_out(fleet, max_in_flight="4", healthy_seconds=0, groups=[{"percent": 25}])
    for _ in range(30):
        fleet.tick()
        at_once(*[lambda: jobs.advance(rollout.pk, fleet.now)] * 3)
        rollout.refresh_from_db()
        assert buckets(rollout).get("in_flight", 0) <= 4
        if rollout.has_ended:
            break
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"done": 8})
    assert Assignment.objects.filter(publish=new).count() == 8
    assert rollout.events.filter(kind="group_passed").count() == 2
    assert rollout.events.filter(kind="ended").count() == 1


def test_rollouts_of_the_same_edges_made_at_once_are_one(
    make_fleet: MakeFleet, owner: User, old: Publish, make_publish: Callable[..., Publish]
) -> None:
    fleet = make_fleet(5)
    targets = [make_publish() for _ in range(4)]

    def creating(target: Publish) -> Callable[[], str]:
        def create() -> str:
            operations.create(actor=owner, publish=target.pk, replaces=[old.pk], strategy=Strategy(), now=fleet.now)
            return "made"

        return create

    results = at_once(*(creating(target) for target in targets))
    assert Counter(results) == {"made": 1, "edges_in_rollout": 3}
    assert RolloutMember.objects.count() == 5


def test_abort_while_workers_move_edges_leaves_none_on_the_target(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    fleet = make_fleet(12)
    rollout = roll_out(fleet)

    def rollback() -> str:
        operations.abort(actor=owner, rollout=rollout, rollback=True, now=fleet.now)
        return "asked"

    at_once(*[lambda: jobs.advance(rollout.pk, fleet.now)] * 3, rollback)
    assert fleet.run(rollout).state == State.ROLLED_BACK
    assert set(Edge.objects.values_list("publish", flat=True)) == {old.pk}
    assert set(buckets(rollout)) <= {"waiting", "reverted"}


def test_check_ins_while_edges_move_and_a_late_worker_harm_nothing(
    make_fleet: MakeFleet, roll_out: RollOut, new: Publish
) -> None:
    fleet = make_fleet(6)
    rollout = roll_out(fleet, healthy_seconds=0)
    moment = fleet.now + timedelta(seconds=5)

    def check_in(number: int) -> Callable[[], str]:
        return lambda: fleet.engines[number].checkin(moment) or "came"

    at_once(*(check_in(number) for number in range(6)), lambda: jobs.advance(rollout.pk, moment))
    assert fleet.run(rollout).state == State.SUCCEEDED
    assert set(Edge.objects.values_list("serving_digest", flat=True)) == {new.pipeline_digest}
