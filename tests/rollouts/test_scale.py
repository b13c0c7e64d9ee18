"""Ten thousand edges: a turn stays short, so that a worker can look every few seconds."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from edges.models import Edge
from publishing.models import Publish
from rollouts import jobs
from rollouts.models import Rollout, State
from tests.rollouts.conftest import Fleet, buckets

COUNT = 10_000
# Some times what is measured on two busy cores (docs/rollouts.md): a query an edge would take minutes.
MOST_SECONDS = 20.0


def answering(publish: Publish, now: Any) -> None:
    """All edges check in and serve this publish, in one write."""
    report = {"at": int(now.timestamp() * 1000), "update": {"state": "idle", "error": None}}
    Edge.objects.update(serving_digest=publish.pipeline_digest, report=report, last_contact=now)


def test_ten_thousand_edges_advance_in_seconds(
    make_fleet: Callable[..., Fleet], roll_out: Callable[..., Rollout], new: Publish
) -> None:
    now = timezone.now()
    fleet = make_fleet(COUNT, now=now)
    took = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        answer = work()
        took[name] = round(time.monotonic() - begun, 2)
        return answer

    rollout = timed("create", lambda: roll_out(fleet, healthy_seconds=0))
    timed("move", lambda: jobs.advance(rollout.pk, now))
    assert buckets(rollout) == {"in_flight": COUNT}
    timed("look", lambda: jobs.advance(rollout.pk, now + timedelta(seconds=1)))
    answering(new, now + timedelta(seconds=60))
    timed("prove", lambda: jobs.advance(rollout.pk, now + timedelta(seconds=61)))
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"done": COUNT})
    print(took)
    assert max(took.values()) < MOST_SECONDS, took
