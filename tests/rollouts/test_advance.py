"""From the first edge to the end: what counts as done, what stops a rollout, and that nobody is waited for in vain."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from catalog.models import User
from edges import contacts, queries
from edges import jobs as edge_jobs
from edges import operations as edges
from edges.models import Edge
from publishing.models import Publish
from rollouts import jobs, operations
from rollouts.models import Bucket, Rollout, RolloutMember, State
from tests.rollouts.conftest import Fleet, buckets, should_run

Make = Callable[..., Publish]
MakeFleet = Callable[..., Fleet]
RollOut = Callable[..., Rollout]


def test_edges_move_group_by_group_and_the_target_replaces(
    make_fleet: MakeFleet, roll_out: RollOut, old: Publish, new: Publish
) -> None:
    fleet = make_fleet(10)
    rollout = roll_out(fleet, groups=[{"edges": [fleet.edges[3].name]}, {"percent": 50}])
    fleet.tick(rollout)
    assert should_run(fleet) == {old.pk, new.pk}
    assert list(new.edges.values_list("name", flat=True)) == [fleet.edges[3].name]

    ended = fleet.run(rollout)
    assert (ended.state, ended.reason) == (State.SUCCEEDED, "")
    assert buckets(rollout) == {"done": 10}
    assert should_run(fleet) == {new.pk}
    assert queries.successor_of(old) == new
    assert [group.members.count() for group in rollout.groups.all()] == [1, 5, 4]
    opened = [group.opened_at for group in rollout.groups.all()]
    passed = [group.passed_at for group in rollout.groups.all()]
    assert all(before <= after for before, after in zip(passed, opened[1:], strict=False))  # type: ignore[operator]
    assert not RolloutMember.objects.filter(active=True).exists()


def test_replaces_is_set_at_the_end_only(make_fleet: MakeFleet, roll_out: RollOut, old: Publish, new: Publish) -> None:
    fleet = make_fleet(4)
    rollout = roll_out(fleet, max_in_flight="1")
    fleet.tick(rollout)
    assert not new.replaces.exists()
    assert edge_jobs.follow_replacements(fleet.now) == 0
    assert new.edges.count() == 1


def test_never_more_in_flight_than_allowed(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(9)
    rollout = roll_out(fleet, max_in_flight="2")
    most = 0
    for _ in range(100):
        fleet.tick(rollout)
        most = max(most, buckets(rollout).get("in_flight", 0))
    assert most == 2
    assert buckets(rollout) == {"done": 9}


def test_report_from_before_the_move_proves_nothing(make_fleet: MakeFleet, roll_out: RollOut, new: Publish) -> None:
    fleet = make_fleet(1)
    Edge.objects.update(serving_digest=new.pipeline_digest)  # as if an old answer were read again
    rollout = roll_out(fleet, healthy_seconds=0)
    for _ in range(3):
        jobs.advance(rollout.pk, fleet.now)
    assert buckets(rollout) == {"in_flight": 1}


def test_edge_is_done_after_it_was_healthy_for_long_enough(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(1)
    rollout = roll_out(fleet, healthy_seconds=60)
    seen = []
    for _ in range(6):
        fleet.tick(rollout)
        seen.append(next(iter(buckets(rollout))))
    # moved, told and taken, first proof at the third, 60 seconds later done
    assert seen == ["in_flight", "in_flight", "in_flight", "in_flight", "done", "done"]


def test_time_alone_makes_no_edge_healthy(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(1)
    rollout = roll_out(fleet, healthy_seconds=60)
    for _ in range(3):
        fleet.tick(rollout)
    assert rollout.members.get().healthy_since
    jobs.advance(rollout.pk, fleet.now + timedelta(seconds=200))
    assert buckets(rollout) == {"in_flight": 1}
    jobs.advance(rollout.pk, fleet.now + timedelta(seconds=400))
    assert buckets(rollout) == {"offline": 1}


def test_busy_update_is_no_proof(make_fleet: MakeFleet, roll_out: RollOut, new: Publish) -> None:
    fleet = make_fleet(1)
    rollout = roll_out(fleet, healthy_seconds=0)
    fleet.tick(rollout)
    now = fleet.now + timedelta(seconds=30)
    report = {"serving": {"digest": new.pipeline_digest}, "update": {"state": "warming", "error": None}}
    contacts.checkin(edge=fleet.edges[0], report=report, now=now)
    jobs.advance(rollout.pk, now)
    assert buckets(rollout) == {"in_flight": 1}


def test_failure_of_an_earlier_update_is_not_held_against_an_edge(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(1)
    fleet.engines[0].update = "failed"
    rollout = roll_out(fleet)
    jobs.advance(rollout.pk, fleet.now)
    fleet.engines[0].works = True
    assert fleet.run(rollout).state == State.SUCCEEDED
    assert buckets(rollout) == {"done": 1}


def test_too_many_failures_move_everything_back(
    make_fleet: MakeFleet, roll_out: RollOut, old: Publish, new: Publish
) -> None:
    fleet = make_fleet(10)
    for engine in fleet.engines[:5]:
        engine.works = False
    rollout = fleet.run(roll_out(fleet, max_in_flight="5"))
    assert rollout.state == State.ROLLED_BACK
    assert "edges that answered failed; at most 10 % may" in rollout.reason
    assert set(rollout.members.values_list("bucket", "reason")) >= {("reverted", "no room on the disk")}, "it says why"
    assert should_run(fleet) == {old.pk}
    assert {engine.digest for engine in fleet.engines} == {old.pipeline_digest}
    assert not new.replaces.exists()


def test_rollback_waits_for_proof_and_tells_of_edges_that_give_none(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish
) -> None:
    fleet = make_fleet(3)
    rollout = roll_out(fleet, groups=[{"percent": 100}])
    for _ in range(3):
        fleet.tick(rollout)
    assert buckets(rollout) == {"in_flight": 3}
    fleet.engines[0].broken = old.pipeline_digest
    operations.abort(actor=owner, rollout=rollout, rollback=True, now=fleet.now)
    jobs.advance(rollout.pk, fleet.now)
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.ROLLING_BACK, {"reverting": 3})
    ended = fleet.run(rollout)
    assert (ended.state, buckets(rollout)) == (State.FAILED, {"reverted": 2, "stuck": 1})
    assert "1 edges did not prove" in ended.reason
    assert should_run(fleet) == {old.pk}


def test_without_automatic_rollback_it_pauses_until_a_person_decides(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, new: Publish
) -> None:
    fleet = make_fleet(4)
    fleet.engines[0].works = False
    rollout = roll_out(fleet, auto_rollback=False)
    for _ in range(10):
        fleet.tick(rollout)
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.PAUSED, {"done": 3, "failed": 1})
    operations.resume(actor=owner, rollout=rollout, now=fleet.now)
    assert fleet.run(rollout).state == State.SUCCEEDED
    assert should_run(fleet) == {new.pk}


def test_edge_in_contact_without_proof_fails_in_time(make_fleet: MakeFleet, roll_out: RollOut, old: Publish) -> None:
    fleet = make_fleet(1)
    rollout = roll_out(fleet, auto_rollback=False, answer_seconds=120)
    jobs.advance(rollout.pk, fleet.now)
    for _ in range(5):
        fleet.now += timedelta(seconds=30)
        report = {"serving": {"digest": old.pipeline_digest}, "update": {"state": "pulling", "error": None}}
        contacts.checkin(edge=fleet.edges[0], report=report, now=fleet.now)
        jobs.advance(rollout.pk, fleet.now)
    assert buckets(rollout) == {"failed": 1}
    assert "did not prove in time" in rollout.members.get().reason


def test_late_proof_makes_a_failed_edge_done(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(2)
    fleet.engines[0].works = False
    rollout = roll_out(fleet, auto_rollback=False)
    for _ in range(6):
        fleet.tick(rollout)
    assert buckets(rollout)["failed"] == 1
    fleet.engines[0].works = True
    for _ in range(5):
        fleet.tick(rollout)
    assert buckets(rollout) == {"done": 2}


def test_offline_edges_block_nothing_and_take_the_target_when_they_return(
    make_fleet: MakeFleet, roll_out: RollOut, new: Publish
) -> None:
    fleet = make_fleet(6)
    for engine in fleet.engines[:3]:
        engine.is_up = False
    for _ in range(12):
        fleet.tick()
    rollout = fleet.run(roll_out(fleet, groups=[{"percent": 50}]))
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"done": 3, "offline": 3})
    assert should_run(fleet) == {new.pk}
    for engine in fleet.engines:
        engine.is_up = True
    fleet.tick()
    assert {engine.digest for engine in fleet.engines} == {new.pipeline_digest}


def test_group_of_offline_edges_alone_passes(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(3)
    later = fleet.now + timedelta(hours=1)
    rollout = roll_out(fleet)
    jobs.advance(rollout.pk, later)
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"offline": 3})


def test_edge_that_returns_takes_a_place_and_is_counted(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(4)
    fleet.engines[0].is_up = False
    for _ in range(12):
        fleet.tick()
    rollout = roll_out(fleet, max_in_flight="1")
    fleet.tick(rollout)
    assert buckets(rollout) == {"offline": 1, "in_flight": 1, "waiting": 2}
    fleet.engines[0].is_up = True
    assert fleet.run(rollout).state == State.SUCCEEDED
    assert buckets(rollout) == {"done": 4}


def test_offline_edges_are_pointed_back_before_they_return(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, new: Publish
) -> None:
    fleet = make_fleet(4)
    fleet.engines[0].is_up = False
    for _ in range(12):
        fleet.tick()
    rollout = roll_out(fleet, max_in_flight="1")
    fleet.tick(rollout)
    assert Edge.objects.get(pk=fleet.edges[0].pk).publish == new
    operations.abort(actor=owner, rollout=rollout, now=fleet.now)
    ended = fleet.run(rollout)
    assert ended.state == State.ABORTED
    assert Edge.objects.get(pk=fleet.edges[0].pk).publish == old
    fleet.engines[0].is_up = True
    fleet.tick()
    assert fleet.engines[0].digest == old.pipeline_digest


def test_abort_keeps_what_was_proved_and_takes_back_the_rest(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, new: Publish
) -> None:
    fleet = make_fleet(6)
    rollout = roll_out(fleet, max_in_flight="2")
    while buckets(rollout).get("done", 0) < 2 or not buckets(rollout).get("in_flight"):
        fleet.tick(rollout)
    operations.abort(actor=owner, rollout=rollout, reason="wrong model", now=fleet.now)
    ended = fleet.run(rollout)
    assert (ended.state, ended.reason) == (State.ABORTED, "wrong model")
    assert buckets(rollout) == {"done": 2, "reverted": 2, "waiting": 2}
    assert new.edges.count() == 2
    assert not new.replaces.exists()


def test_paused_moves_nobody_new_and_goes_on_when_resumed(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, new: Publish
) -> None:
    fleet = make_fleet(5)
    rollout = roll_out(fleet, max_in_flight="1")
    fleet.tick(rollout)
    operations.pause(actor=owner, rollout=rollout, now=fleet.now)
    for _ in range(8):
        fleet.tick(rollout)
    assert buckets(rollout) == {"done": 1, "waiting": 4}
    operations.resume(actor=owner, rollout=rollout, now=fleet.now)
    assert fleet.run(rollout).state == State.SUCCEEDED


@pytest.mark.parametrize("paused", [False, True])
def test_it_ends_at_its_deadline_whatever_edges_do(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, *, paused: bool
) -> None:
    fleet = make_fleet(3)
    rollout = roll_out(fleet, hours=1, answer_seconds=604_800, max_in_flight="1")
    for engine in fleet.engines:
        engine.works = False
        engine.update = "pulling"
    if paused:
        operations.pause(actor=owner, rollout=rollout, now=fleet.now)
    jobs.advance(rollout.pk, fleet.now)
    jobs.advance(rollout.pk, fleet.now + timedelta(hours=2))
    for _ in range(3):
        jobs.advance(rollout.pk, fleet.now + timedelta(hours=3))
    rollout.refresh_from_db()
    assert rollout.state == State.FAILED
    assert "time was over" in rollout.reason
    assert should_run(fleet) == {old.pk}


def test_outside_the_window_edges_are_held(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(2)  # at 12:00 UTC
    window = {"from": "14:00", "to": "15:00", "zone": "Europe/Berlin"}
    rollout = roll_out(fleet, window=window, max_in_flight="1")
    fleet.tick(rollout)
    assert buckets(rollout) == {"held_by_window": 2}
    fleet.now += timedelta(minutes=64)  # 14:04 in Berlin
    for engine in fleet.engines:
        engine.checkin(fleet.now)
    fleet.tick(rollout)
    assert buckets(rollout) == {"waiting": 1, "in_flight": 1}
    assert fleet.run(rollout).state == State.SUCCEEDED


def test_removed_banned_and_moved_edges_are_gone_and_block_nothing(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, make_publish: Make
) -> None:
    fleet = make_fleet(5)
    rollout = roll_out(fleet, max_in_flight="1")
    edges.remove_edge(actor=owner, edge=fleet.edges[0])
    edges.ban_edge(actor=owner, edge=fleet.edges[1])
    elsewhere = make_publish()
    edge_jobs.move_edges(source=old, target=elsewhere, only=[fleet.edges[2]], now=fleet.now)
    for engine in fleet.engines[:2]:
        engine.is_up = False
    ended = fleet.run(rollout)
    assert (ended.state, buckets(rollout)) == (State.SUCCEEDED, {"done": 2, "gone": 3})
    assert Edge.objects.get(pk=fleet.edges[2].pk).publish == elsewhere


def test_edge_added_to_the_old_publish_meanwhile_follows_at_the_end(
    make_fleet: MakeFleet, roll_out: RollOut, owner: User, old: Publish, new: Publish
) -> None:
    fleet = make_fleet(2)
    rollout = roll_out(fleet)
    late = edges.add_edge(actor=owner, publish=old, name="late", now=fleet.now).edge
    fleet.run(rollout)
    edge_jobs.follow_replacements(fleet.now)
    assert Edge.objects.get(pk=late.pk).publish == new


def test_moves_are_in_the_history_of_the_edge_and_of_the_rollout(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(1)
    rollout = fleet.run(roll_out(fleet))
    moved = fleet.edges[0].events.get(kind="moved")
    assert moved.detail == {"from": fleet.edges[0].publish_id, "to": rollout.publish_id, "rollout": rollout.pk}
    kinds = list(rollout.events.order_by("id").values_list("kind", flat=True))
    assert kinds == ["created", "started", "group_opened", "group_passed", "ended"]


def test_advancing_again_changes_nothing(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(4)
    rollout = roll_out(fleet, max_in_flight="2")
    jobs.advance(rollout.pk, fleet.now)
    before = list(rollout.members.order_by("pk").values())
    for _ in range(3):
        jobs.advance(rollout.pk, fleet.now)
    assert list(rollout.members.order_by("pk").values()) == before
    assert fleet.run(rollout).state == State.SUCCEEDED
    assert not jobs.advance(rollout.pk, fleet.now)


def test_worker_that_died_is_not_waited_for_longer_than_its_lease(make_fleet: MakeFleet, roll_out: RollOut) -> None:
    fleet = make_fleet(2)
    rollout = roll_out(fleet)
    turn = jobs.Turn(rollout.pk, fleet.now)
    assert turn.take()
    assert not jobs.advance(rollout.pk, fleet.now)
    assert jobs.advance(rollout.pk, fleet.now + timedelta(seconds=90))
    with pytest.raises(jobs.LeaseLost), turn.step():
        pass


def test_killed_between_any_two_writes_ends_the_same(
    make_fleet: MakeFleet, roll_out: RollOut, new: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 is an exception that nothing handles: whole transactions stay, the rest never was."""
    fleet = make_fleet(7)
    rollout = roll_out(fleet, max_in_flight="3", groups=[{"percent": 30}])
    monkeypatch.setattr(jobs, "BATCH", 2)
    step, release, left = jobs.Turn.step, jobs.Turn.release, [0]

    def dying(turn: jobs.Turn) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit
        return step(turn)

    monkeypatch.setattr(jobs.Turn, "step", dying)
    for survives in range(400):
        rollout.refresh_from_db()
        if rollout.has_ended:
            break
        left[0] = survives % 7
        monkeypatch.setattr(jobs.Turn, "release", lambda turn: release(turn) if left[0] >= 0 else None)
        fleet.now += timedelta(seconds=61)
        for engine in fleet.engines:
            engine.checkin(fleet.now)
        try:
            jobs.advance(rollout.pk, fleet.now + timedelta(seconds=1))
        except SystemExit:
            continue
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"done": 7})
    assert should_run(fleet) == {new.pk}
    assert Bucket.DONE in buckets(rollout)
