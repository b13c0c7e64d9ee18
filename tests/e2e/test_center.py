"""The processes of a center, in each shape that we ship."""

import secrets
import time

import pytest

from tests.e2e.centers import RunningCenter, status_of

pytestmark = pytest.mark.e2e


def test_administrator_logs_in_and_makes_a_workspace(center: RunningCenter) -> None:
    api, name = center.api(), f"smoke-{secrets.token_hex(4)}"
    made = api.post("workspaces", {"name": name})
    assert api.get(f"workspaces/{made['id']}")["name"] == name


def test_it_says_that_it_is_alive_and_ready(center: RunningCenter) -> None:
    assert status_of(f"{center.url}/healthz") == 200
    assert status_of(f"{center.url}/readyz") == 200


def test_first_start_makes_one_workspace(center: RunningCenter) -> None:
    names = [workspace["name"] for workspace in center.api().get("workspaces", limit=1000)["results"]]
    assert names.count("default") == 1


@pytest.mark.parametrize("role", ["web", "worker", "beat"])
def test_killed_role_comes_back(center: RunningCenter, role: str) -> None:
    before = center.pid(role)
    center.restart(role)
    assert center.pid(role) != before
    assert status_of(f"{center.url}/readyz") == 200


def test_killed_web_leaves_no_process_on_its_port(center: RunningCenter) -> None:
    center.kill("web")
    time.sleep(0.2)
    # The embedded shape is on its way back already; the other one stays away until it is started.
    if center.shape == "production":
        assert status_of(f"{center.url}/healthz") == 0
        center.start("web")
    center.wait_until_ready()
