"""A rollout on whole centers whose web, worker and engines are killed, one after another, while it is under way."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from examples.center import Engine, Failed, wait_for
from tests.e2e.centers import RunningCenter
from tests.e2e.test_dashboard import weighted_sum
from tests.e2e.test_killed_processes import Site, serving
from tests.e2e.test_rollouts import JSON_TYPE, QUESTION

pytestmark = pytest.mark.e2e

EDGES = 4
ENDED = 300.0  # seconds: a killed worker's lease may have to end more than once


class Sites:
    """The engines of the rollout's edges, each with a folder that outlives it."""

    def __init__(self, edges: list[Any], start: Callable[..., Engine], folder: Path) -> None:
        self.edges, self._start, self._folder = edges, start, folder
        self.engines = [self._started(number) for number in range(len(edges))]

    def kill(self, number: int) -> None:
        """kill -9, and a start from what lies on the disk, as a site's container runtime would."""
        process = self.engines[number].process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self.engines[number] = self._started(number)

    def _started(self, number: int) -> Engine:
        return self._start(self.edges[number]["edge_bundle"], folder=self._folder / f"site-{number}")


@contextmanager
def asked_all_the_time(engine: Engine) -> Iterator[Counter[str]]:
    """How one engine that nobody kills answers meanwhile: `12.0` or `6.0`, by the publish that it serves."""
    answers: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.05):
            try:
                answers[str(engine.infer(QUESTION, JSON_TYPE)[0]["out"]["y"][0])] += 1
            except (Failed, urllib3.exceptions.HTTPError) as refusal:
                answers[str(refusal)] += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join()


def test_rollout_ends_right_though_web_worker_and_engines_are_killed(
    center: RunningCenter, engine: Callable[..., Engine], tmp_path: Path
) -> None:
    site = Site(center.api())
    old, new = site.publish(weighted_sum(1.0)), site.publish(weighted_sum(2.0))
    edges = [
        site.api.post(f"publishes/{old['id']}/edges", {"name": f"{site.name}-{number}"}) for number in range(EDGES)
    ]
    sites = Sites(edges, engine, tmp_path)
    for started in sites.engines:
        serving(started)
    asked = {
        "publish": new["id"],
        "replaces": [old["id"]],
        "groups": [{"edges": [edges[0]["name"]]}],
        "max_in_flight": "2",
        "healthy_seconds": 2,
        "answer_seconds": 300,
    }
    with asked_all_the_time(sites.engines[-1]) as answers:
        rollout = site.api.post("rollouts", asked)["id"]
        for number in (0, 1):  # the canary's way, then that of the others
            wait_for("edges on their way", lambda number=number: _is_moving(site, rollout, number))  # type: ignore[misc]
            sites.kill(number)
            center.restart("web")
            center.restart("worker")
        ended = wait_for("the rollout's end", lambda: _ended(site, rollout), ENDED)
        wait_for("every edge on the new publish", lambda: all(_is_serving(site, edge) for edge in edges), 120)

    assert (ended["state"], ended["progress"]["edges"]) == ("succeeded", EDGES)
    counts = {bucket: count for bucket, count in ended["progress"]["counts"].items() if count}
    assert sum(counts.values()) == EDGES
    assert set(counts) <= {"done", "offline"}, "slow to start again is no failure"
    _nothing_was_done_twice(site, rollout, edges, new)
    for running in sites.engines:
        assert "12.0" in str(running.infer(QUESTION, JSON_TYPE)), "none is stranded"
    assert answers["6.0"] and answers["12.0"] and set(answers) == {"6.0", "12.0"}, "and no request failed"


def _nothing_was_done_twice(site: Site, rollout: int, edges: list[Any], new: Any) -> None:
    events = Counter(event["kind"] for event in _all(site, f"rollouts/{rollout}/events"))
    assert (events["started"], events["group_opened"], events["group_passed"], events["ended"]) == (1, 2, 2, 1)
    for edge in edges:
        told = _all(site, f"edges/{edge['id']}/events")
        moves = [event["detail"] for event in told if event["kind"] == "moved"]
        assert [(move["to"], move["rollout"]) for move in moves] == [(new["id"], rollout)]
        proved = [event for event in told if event["kind"] == "serving"]
        assert [event["detail"]["to"] for event in proved].count(new["pipeline_digest"]) >= 1
        assert Counter(event["kind"] for event in told)["joined"] == 1, "it goes on with the session that it has"


def _all(site: Site, path: str) -> list[Any]:
    found: list[Any] = site.api.get(path, limit=100)["results"]
    return found


def _is_moving(site: Site, rollout: int, at_least_done: int) -> bool:
    now = site.api.get(f"rollouts/{rollout}")
    counts = now["progress"]["counts"]
    return bool(now["ended_at"] or (counts["in_flight"] and counts["done"] >= at_least_done))


def _ended(site: Site, rollout: int) -> Any:
    now = site.api.get(f"rollouts/{rollout}")
    return now if now["ended_at"] else None


def _is_serving(site: Site, edge: Any) -> bool:
    status = site.api.get(f"edges/{edge['id']}")["status"]
    return bool(status["is_serving"] and status["state"] == "online")
