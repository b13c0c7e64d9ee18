"""The fleet's publish replaced by a rollout: canaries, a quarter, the rest; edges are away or cannot take it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import cycle

from django.conf import settings
from django.db import connection
from django.utils import timezone

from bench.fleet import wire
from bench.fleet.center import CANARY, Center
from bench.fleet.engines import Engine
from edges import pending, queries, sessions
from edges.models import Edge
from publishing.models import Publish
from rollouts import jobs, operations
from rollouts import queries as rollouts
from rollouts.models import Bucket, Rollout, State
from rollouts.plans import Strategy

TURN_SECONDS = 1.0  # between a worker's looks; beat calls every 5 seconds, and every change of a person at once
LONGEST = 900.0
# One of a small fleet's few canaries may be one that fails: that must not stop the bench.
STRATEGY = Strategy(
    groups=({"tags": [CANARY]}, {"percent": 25}),
    max_in_flight="40%",
    success_percent=70,
    error_percent=30,
    healthy_seconds=0,
    answer_seconds=600,
)


class Worker(threading.Thread):
    """Advances a rollout as a Celery worker does, and sees to it that it keeps its promises."""

    def __init__(self, rollout: Rollout) -> None:
        super().__init__(name="worker")
        self.rollout = rollout
        self.most_in_flight = 0
        self.cpu = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Until the rollout has ended, or nobody should wait any longer."""
        try:
            until = time.monotonic() + LONGEST
            while time.monotonic() < until:
                jobs.advance(self.rollout.pk, timezone.now())
                in_flight = self.rollout.members.filter(bucket=Bucket.IN_FLIGHT).count()
                self.most_in_flight = max(self.most_in_flight, in_flight)
                self.rollout.refresh_from_db()
                if self.rollout.has_ended:
                    return
                time.sleep(TURN_SECONDS)
        finally:
            self.cpu = time.thread_time()
            self.over.set()
            connection.close()


def replaced(center: Center, old: Publish, engines: Sequence[Engine], rate: int) -> bool:
    """Rolls a new publish out to all edges. Whether each ended as its engine did, those that were away too."""
    online, away = _parted(engines)
    new = center.publish()
    _fall_silent(away)
    begin = time.perf_counter()
    rollout = operations.create(
        actor=center.owner, publish=new.pk, replaces=[old.pk], strategy=STRATEGY, now=timezone.now()
    )
    print(f"rollout of {len(engines)} edges made in {time.perf_counter() - begin:.1f} s", flush=True)
    worker = Worker(rollout)
    worker.start()
    center.measured(
        f"check-ins meanwhile, {rate}/s", lambda: wire.each(settings.PORT, _until(worker.over, online), rate=rate)
    )
    worker.join()
    print(
        f"  rollout {rollout.state} in {time.perf_counter() - begin:.1f} s, at most {worker.most_in_flight} of "
        f"{rollout.max_in_flight} in flight, CPU of the worker {worker.cpu:.1f} s",
        flush=True,
    )
    right = _kept_its_word(worker, engines) and _right(engines, old, new)
    for name in ("those that were away return", "and prove it"):
        center.measured(name, lambda: wire.each(settings.PORT, [engine.checkin for engine in away]))
    for engine in away:
        engine.is_offline = False
    return _right(engines, old, new) and right


def _parted(engines: Sequence[Engine]) -> tuple[list[Engine], list[Engine]]:
    return [e for e in engines if not e.is_offline], [e for e in engines if e.is_offline]


def _written() -> None:
    """Waits until the center has written the check-ins that it holds."""
    time.sleep(pending.hold_seconds() + 1)


def _fall_silent(away: Sequence[Engine]) -> None:
    """An hour of silence, in no time."""
    _written()
    silent = timezone.now() - timedelta(hours=1)
    rows = Edge.objects.filter(pk__in=[engine.id for engine in away])
    rows.update(last_contact=silent, session_lapses_at=silent + sessions.SESSION_LIFE)


def _until(over: threading.Event, engines: Sequence[Engine]) -> Iterator[wire.Work]:
    """Check-ins of all engines in turn until it is over."""
    for engine in cycle(engines):
        if over.is_set():
            return
        yield engine.checkin


def _kept_its_word(worker: Worker, engines: Sequence[Engine]) -> bool:
    """Whether the rollout counted each edge once and where it belongs, and had no more in flight than it may."""
    expected = Counter(_bucket(engine) for engine in engines)
    counts = {bucket: count for bucket, count in rollouts.progress_of(worker.rollout).counts.items() if count}
    print(f"  counted: {counts}", flush=True)
    return (
        worker.rollout.state == State.SUCCEEDED
        and counts == expected
        and worker.most_in_flight <= worker.rollout.max_in_flight
    )


def _bucket(engine: Engine) -> str:
    if engine.is_offline:
        return Bucket.OFFLINE.value
    return Bucket.FAILED.value if engine.is_failing else Bucket.DONE.value


def _right(engines: Sequence[Engine], old: Publish, new: Publish) -> bool:
    _written()
    now = timezone.now()
    rows = {str(edge.pk): edge for edge in Edge.objects.select_related("publish__pipeline_version__pipeline")}
    wrong: Counter[str] = Counter()
    for engine in engines:
        state = queries.edge_state(rows[engine.id], now)
        serving = old if engine.is_offline or engine.is_failing else new
        if state.should_run.publish_id != new.pk or state.serving_digest != serving.pipeline_digest:
            wrong["publish"] += 1
        elif state.is_serving != (serving == new):
            wrong["proof"] += 1
        elif engine.is_failing and not engine.is_offline and "golden request" not in state.explain:
            wrong["reason"] += 1
    print(f"  states: {len(engines) - wrong.total()} right, {dict(wrong) or 'none'} wrong", flush=True)
    return not wrong and len(rows) == len(engines)
