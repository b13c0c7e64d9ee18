"""Whatever edges and people do, in any order: a rollout ends, and what it says is true. The clock is the test's."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.models import User
from common.errors import DomainError
from edges.models import Assignment, Edge
from publishing.models import Publish
from rollouts import jobs, operations
from rollouts.models import BACKWARD, Bucket, Rollout, RolloutMember, State
from tests.rollouts.conftest import Fleet, buckets

SIZE = 5
HOURS = 1

ACTIONS = st.one_of(
    st.tuples(st.just("tick"), st.integers(1, 12)),
    st.tuples(st.just("up"), st.integers(0, SIZE - 1)),
    st.tuples(st.just("down"), st.integers(0, SIZE - 1)),
    st.tuples(st.just("works"), st.integers(0, SIZE - 1)),
    st.tuples(st.just("fails"), st.integers(0, SIZE - 1)),
    st.tuples(st.just("hangs"), st.integers(0, SIZE - 1)),
    st.tuples(st.just("remove"), st.integers(0, SIZE - 1)),
    st.tuples(st.sampled_from(["pause", "resume", "abort", "rollback"]), st.just(0)),
)
STRATEGIES = st.fixed_dictionaries(
    {
        "max_in_flight": st.sampled_from(["1", "2", "100%"]),
        "groups": st.sampled_from([[{"percent": 100}], [{"percent": 20}, {"percent": 50}], [{"tags": ["none"]}]]),
        "success_percent": st.sampled_from([50, 100]),
        "error_percent": st.sampled_from([0, 30, 100]),
        "healthy_seconds": st.sampled_from([0, 30, 90]),
        "auto_rollback": st.booleans(),
        "window": st.sampled_from([None, {"from": "12:05", "to": "12:20"}]),
    }
)


class Course:
    """A rollout and everything that may happen to it."""

    def __init__(self, fleet: Fleet, rollout: Rollout, old: Publish, new: Publish) -> None:
        self.fleet, self.rollout, self.old, self.new = fleet, rollout, old, new
        self.limit = rollout.max_in_flight
        self.proved: dict[object, bool] = {}

    def do(self, action: str, value: int) -> None:
        engine = self.fleet.engines[value] if action != "tick" else self.fleet.engines[0]
        match action:
            case "tick":
                for _ in range(value):
                    self.tick()
            case "up" | "down":
                engine.is_up = action == "up" and not Edge.objects.get(pk=engine.edge).removed_at
            case "works":
                engine.works = True
            case "fails" | "hangs":
                engine.works = False
                engine.hangs = action == "hangs"
            case "remove":
                Edge.objects.filter(pk=engine.edge).update(removed_at=self.fleet.now)
                engine.is_up = False
            case _:
                self.steer(action)

    def steer(self, action: str) -> None:
        verbs = {"pause": operations.pause, "resume": operations.resume, "abort": operations.abort}
        more = {"rollback": True} if action == "rollback" else {}
        try:
            verbs.get(action, operations.abort)(
                actor=self.fleet.actor, rollout=self.rollout, now=self.fleet.now, **more
            )
        except DomainError as refusal:
            assert refusal.code == "rollout_state"

    def tick(self) -> None:
        before = set(self.members(bucket=Bucket.DONE))
        self.fleet.tick(self.rollout)
        self.rollout.refresh_from_db()
        assert self.members(bucket=Bucket.IN_FLIGHT).count() <= self.limit
        for member in set(self.members(bucket=Bucket.DONE)) - before:
            edge = member.edge
            assert edge.serving_digest == self.new.pipeline_digest
            assert edge.report["update"]["state"] == "idle"
            assert member.moved_at and edge.report["at"] > member.moved_at.timestamp() * 1000
            told = Assignment.objects.filter(edge=edge, publish=self.new, since__lte=self.fleet.now)
            assert told.exists()

    def members(self, **of: object) -> "RolloutMember.objects":  # type: ignore[name-defined,valid-type]
        return RolloutMember.objects.filter(rollout=self.rollout, **of).select_related("edge")

    def to_the_end(self) -> None:
        # The deadline, an answer's time, and an interval for each to be seen.
        most = int(timedelta(hours=HOURS) / timedelta(seconds=31)) + 60
        for _ in range(most):
            if self.rollout.has_ended:
                return
            self.tick()
        raise AssertionError(f"it does not end: {self.rollout.state}, {buckets(self.rollout)}")

    def check_end(self) -> None:
        state = self.rollout.state
        assert not self.members(active=True).exists()
        left = Edge.objects.filter(removed_at=None)
        if state == State.SUCCEEDED:
            assert self.new.replaces.get() == self.old
            settled = {Bucket.DONE, Bucket.FAILED, Bucket.OFFLINE, Bucket.GONE}
            assert set(self.members().values_list("bucket", flat=True)) <= settled
            assert not left.exclude(publish=self.new).exists()
            return
        assert state not in BACKWARD
        assert not self.new.replaces.exists()
        on_target = set(left.filter(publish=self.new).values_list("pk", flat=True))
        assert on_target <= set(self.members(bucket=Bucket.DONE).values_list("edge", flat=True))
        if state == State.ROLLED_BACK:
            assert not on_target
            for member in self.members(bucket=Bucket.REVERTED):
                assert member.edge.serving_digest == self.old.pipeline_digest


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategy=STRATEGIES, actions=st.lists(ACTIONS, max_size=12))
def test_every_course_ends_and_counts_only_proof(
    owner: User,
    old: Publish,
    new: Publish,
    make_fleet: Callable[..., Fleet],
    roll_out: Callable[..., Rollout],
    strategy: dict[str, object],
    actions: list[tuple[str, int]],
) -> None:
    with transaction.atomic():
        fleet = make_fleet(SIZE)
        rollout = roll_out(fleet, hours=HOURS, answer_seconds=120, **strategy)
        course = Course(fleet, rollout, old, new)
        for action, value in actions:
            course.do(action, value)
        course.to_the_end()
        course.check_end()
        transaction.set_rollback(True)


@pytest.mark.parametrize("state", ["up", "down"])
def test_fleet_that_never_works_ends_where_it_was(
    old: Publish, new: Publish, make_fleet: Callable[..., Fleet], roll_out: Callable[..., Rollout], state: str
) -> None:
    fleet = make_fleet(SIZE)
    rollout = roll_out(fleet, hours=HOURS)
    course = Course(fleet, rollout, old, new)
    for number in range(SIZE):
        course.do("fails", number)
        course.do(state, number)
    course.to_the_end()
    course.check_end()
    assert not jobs.advance(rollout.pk, fleet.now)
