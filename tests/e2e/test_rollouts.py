"""A rollout on whole centers with real engines, while its worker is killed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from examples.center import Engine, wait_for
from tests.e2e.centers import RunningCenter
from tests.e2e.test_dashboard import weighted_sum
from tests.e2e.test_killed_processes import Site

pytestmark = pytest.mark.e2e

EDGES = 3
QUESTION = b'[{"tensor": [1.0, 2.0, 3.0]}]'
JSON_TYPE = "application/json; format=pandas-records"


def rollout_at(center: RunningCenter, pk: int, state: str, seconds: float = 120) -> Any:
    api = center.api()

    def found() -> Any:
        now = api.get(f"rollouts/{pk}")
        assert now["state"] == state or not now["ended_at"], now
        return now if now["state"] == state else None

    return wait_for(f"rollout {pk} to be {state}", found, seconds)


def test_engines_move_one_by_one_and_back_while_the_worker_is_killed(
    center: RunningCenter, engine: Callable[..., Engine]
) -> None:
    site = Site(center.api())
    old, new = site.publish(weighted_sum(1.0)), site.publish(weighted_sum(2.0))
    edges = [
        site.api.post(f"publishes/{old['id']}/edges", {"name": f"{site.name}-{number}", "tags": ["site"]})
        for number in range(EDGES)
    ]
    engines = [engine(edge["edge_bundle"]) for edge in edges]
    for started in engines:
        wait_for("an engine", started.is_ready)
    asked = {
        "publish": new["id"],
        "replaces": [old["id"]],
        "groups": [{"edges": [edges[1]["name"]]}],
        "max_in_flight": "1",
        "healthy_seconds": 1,
        "answer_seconds": 60,
    }
    planned = site.api.post("rollouts/preview", asked)
    lacks = {line["bytes_to_fetch"] for line in planned["budget"]}
    assert len(planned["budget"]) == EDGES
    assert all(0 < size < 10_000 for size in lacks)

    made = site.api.post("rollouts", asked)
    center.restart("worker")
    ended = rollout_at(center, made["id"], "succeeded")
    assert ended["progress"]["counts"]["done"] == EDGES
    assert [group["edges"] for group in ended["progress"]["groups"]] == [1, EDGES - 1]
    for edge, started in zip(edges, engines, strict=True):
        assert site.api.get(f"edges/{edge['id']}")["status"]["is_serving"]
        assert "12.0" in str(started.infer(QUESTION, JSON_TYPE))
    assert site.api.get(f"publishes/{new['id']}")["replaces"]

    third = site.publish(weighted_sum(3.0))
    again = asked | {"publish": third["id"], "replaces": [new["id"]], "healthy_seconds": 3600}
    back = site.api.post("rollouts", again)
    wait_for("the canary to answer anew", lambda: "18.0" in str(engines[1].infer(QUESTION, JSON_TYPE)))
    site.api.post(f"rollouts/{back['id']}/abort", {"rollback": True, "reason": "a drill"})
    ended = rollout_at(center, back["id"], "rolled back")
    assert ended["progress"]["counts"] | {"reverted": 1, "waiting": EDGES - 1} == ended["progress"]["counts"]
    time.sleep(2)
    for started in engines:
        assert "12.0" in str(started.infer(QUESTION, JSON_TYPE))
