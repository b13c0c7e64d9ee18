"""Ten thousand edges: a turn takes few statements, so that a worker can look every few seconds."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from edges.models import Assignment, Edge, EdgeEvent
from publishing.models import Publish
from rollouts import jobs
from rollouts.models import Rollout, RolloutMember, State
from tests.rollouts.conftest import Fleet, buckets

COUNT = 10_000
MOST_STATEMENTS = COUNT // 10  # edges are written by the hundreds; a statement an edge would take minutes


def answering(publish: Publish, now: Any) -> None:
    """All edges check in and serve this publish, in one write."""
    report = {"at": int(now.timestamp() * 1000), "update": {"state": "idle", "error": None}}
    Edge.objects.update(serving_digest=publish.pipeline_digest, report=report, last_contact=now)


def as_if_empty() -> None:
    """What a database believes whose statistics are from before the tables were filled; one that falls for it fails."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        tables = [model._meta.db_table for model in (Edge, RolloutMember, Assignment, EdgeEvent)]
        cursor.execute("UPDATE pg_class SET reltuples = 0, relpages = 400 WHERE relname = ANY(%s)", [tables])
        cursor.execute("SET LOCAL statement_timeout = '20s'")  # all with all takes longer, everything else a moment


def test_ten_thousand_edges_advance_in_few_statements(
    make_fleet: Callable[..., Fleet], roll_out: Callable[..., Rollout], new: Publish
) -> None:
    now = timezone.now()
    fleet = make_fleet(COUNT, now=now)
    needed = {}

    def counted(name: str, work: Callable[[], Any]) -> Any:
        with CaptureQueriesContext(connection) as queries:
            answer = work()
        needed[name] = len(queries)
        return answer

    as_if_empty()
    rollout = counted("create", lambda: roll_out(fleet, healthy_seconds=0))
    counted("move", lambda: jobs.advance(rollout.pk, now))
    assert buckets(rollout) == {"in_flight": COUNT}
    counted("look", lambda: jobs.advance(rollout.pk, now + timedelta(seconds=1)))
    # A turn's clock runs on while it works: far enough ahead that a slow machine's moves still come before the proof.
    later = now + timedelta(hours=1)
    answering(new, later)
    counted("prove", lambda: jobs.advance(rollout.pk, later + timedelta(seconds=1)))
    rollout.refresh_from_db()
    assert (rollout.state, buckets(rollout)) == (State.SUCCEEDED, {"done": COUNT})
    assert max(needed.values()) < MOST_STATEMENTS, needed
