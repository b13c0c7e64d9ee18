"""A fleet of edges that tests move through time, by the center's own code for check-ins."""

import dataclasses
import itertools
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from catalog.models import User
from edges import contacts
from edges.models import Assignment, Edge
from publishing.models import Publish
from rollouts import jobs, operations
from rollouts.models import Rollout, RolloutMember
from rollouts.plans import Strategy
from tests.edges.conftest import START, make_publish  # noqa: F401 a fixture

INTERVAL = timedelta(seconds=30)
LAPSE = timedelta(days=7)


@dataclasses.dataclass
class Engine:
    """What runs at an edge: takes what it is told, one check-in later, unless it cannot."""

    edge: uuid.UUID
    digest: str
    works: bool = True
    is_up: bool = True
    update: str = "idle"
    told: str = ""
    broken: str = ""
    hangs: bool = False

    def checkin(self, now: datetime) -> None:
        """One contact: first what it reports, then what it learns and does until the next one."""
        report = {
            "serving": {"digest": self.digest} if self.digest else None,
            "update": {"state": self.update, "error": "no room on the disk" if self.update == "failed" else None},
        }
        told = contacts.checkin(edge=Edge.objects.get(pk=self.edge), report=report, now=now).publish.pipeline_digest
        if told == self.digest:
            self.update = "idle"
        elif self.works and told != self.broken:
            self.digest, self.update = told, "idle"
        else:
            self.update = "pulling" if self.hangs else "failed"
        self.told = told


class Fleet:
    """Edges, their engines and a clock."""

    def __init__(self, owner: User, publish: Publish, count: int, now: datetime = START, name: str = "e") -> None:
        self.now = now
        self.actor = owner
        self.edges = Edge.objects.bulk_create(
            Edge(
                name=f"{name}{number:05}",
                publish=publish,
                created_by=owner,
                created_at=now,
                joined_at=now,
                last_contact=now,
                session_lapses_at=now + LAPSE,
                serving_digest=publish.pipeline_digest,
                report={"at": int(now.timestamp() * 1000), "update": {"state": "idle", "error": None}},
            )
            for number in range(count)
        )
        Assignment.objects.bulk_create(Assignment(edge=edge, publish=publish, since=now) for edge in self.edges)
        self.engines = [Engine(edge.pk, publish.pipeline_digest) for edge in self.edges]

    def tick(self, *rollouts: Rollout) -> None:
        """An interval later: every engine that is up checks in, then the rollouts are advanced."""
        self.now += INTERVAL
        for engine in self.engines:
            if engine.is_up:
                engine.checkin(self.now)
        self.now += timedelta(seconds=1)
        for rollout in rollouts:
            jobs.advance(rollout.pk, self.now)

    def run(self, rollout: Rollout, most: int = 500) -> Rollout:
        """Until it has ended."""
        for _ in range(most):
            self.tick(rollout)
            rollout.refresh_from_db()
            if rollout.has_ended:
                return rollout
        raise AssertionError(f"{rollout} has not ended: {rollout.state}, {buckets(rollout)}")


def buckets(rollout: Rollout) -> dict[str, int]:
    """How many members are in each bucket that is not empty."""
    found: dict[str, int] = {}
    for bucket in RolloutMember.objects.filter(rollout=rollout).values_list("bucket", flat=True):
        found[bucket] = found.get(bucket, 0) + 1
    return found


def should_run(fleet: Fleet) -> set[int]:
    """The publishes that the edges of a fleet are told to run."""
    return set(Edge.objects.filter(pk__in=[edge.pk for edge in fleet.edges]).values_list("publish", flat=True))


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What would have been sent to workers; tests call the jobs themselves."""
    sent: list[int] = []
    monkeypatch.setattr("rollouts.tasks.advance_rollout.delay", sent.append)
    return sent


Make = Callable[..., Publish]


@pytest.fixture
def old(make_publish: Make) -> Publish:  # noqa: F811
    return make_publish()


@pytest.fixture
def new(old: Publish, make_publish: Make) -> Publish:  # noqa: F811
    return make_publish()


@pytest.fixture
def make_fleet(owner: User, old: Publish) -> Callable[..., Fleet]:
    names = itertools.count()
    return lambda count=10, publish=old, **fields: Fleet(owner, publish, count, name=f"e{next(names)}-", **fields)


@pytest.fixture
def roll_out(owner: User, old: Publish, new: Publish) -> Callable[..., Rollout]:
    """A rollout of `new` to the edges of `old`, made at the fleet's time."""

    def make(fleet: Fleet, **strategy: Any) -> Rollout:
        terms = {"healthy_seconds": 30, "answer_seconds": 300, **strategy}
        return operations.create(
            actor=owner, publish=new.pk, replaces=[old.pk], strategy=Strategy(**terms), now=fleet.now
        )

    return make
