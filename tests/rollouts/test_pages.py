"""Pages of rollouts: wiring, permission, and that they tell what a person needs before and while it goes."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from catalog.models import User
from publishing.models import Publish
from rollouts import jobs
from rollouts.models import Rollout, State
from tests.conftest import check_newest_events
from tests.rollouts.conftest import Fleet

Browser = Callable[..., Client]
MakeFleet = Callable[..., Fleet]
FRAGMENT = {"HTTP_HX_REQUEST": "true"}


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    return make_fleet(4, now=timezone.now())


@pytest.fixture
def filled(fleet: Fleet, old: Publish, new: Publish) -> dict[str, Any]:
    return {
        "publish": new.pk,
        "replaces": [old.pk],
        "canary": fleet.edges[0].name,
        "tags": "",
        "percents": "50",
        "max_in_flight": "2",
        "success_percent": 90,
        "error_percent": 10,
        "healthy_seconds": 60,
        "answer_seconds": 1800,
        "hours": 24,
        "window": "22:00-04:00 Europe/Berlin",
        "days": ["sat", "sun"],
        "auto_rollback": "on",
        "link_mbps": "10",
    }


def create_url(new: Publish) -> str:
    return reverse("rollouts:create", args=[new.pipeline_version.pipeline_id])


def test_form_shows_the_byte_budget_first_and_starts_then(
    browser: Browser, member: User, new: Publish, old: Publish, fleet: Fleet, filled: dict[str, Any]
) -> None:
    client = browser(member)
    assert "Show what it will do" in client.get(create_url(new)).content.decode()
    page = client.post(create_url(new), filled)
    text = page.content.decode()
    assert page.status_code == 200
    assert "Start the rollout" in text
    assert fleet.edges[0].name in text
    assert not Rollout.objects.exists()

    answer = client.post(create_url(new), {**filled, "start": "1"})
    made = Rollout.objects.get()
    assert answer["Location"] == reverse("rollouts:rollout", args=[made.pk])
    assert (made.max_in_flight, made.groups.count()) == (2, 3)
    assert made.window == {"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("percents", "ten", "whole numbers from 1 to 100"),
        ("percents", "9999999999999", "whole numbers from 1 to 100"),
        ("window", "at night", "two times of day"),
        ("window", "22:00-04:00 Atlantis", "no time zone"),
        ("canary", "unknown", "is called unknown"),
        ("replaces", [], "required"),
    ],
)
def test_form_says_what_is_wrong(
    browser: Browser, member: User, new: Publish, filled: dict[str, Any], field: str, value: Any, message: str
) -> None:
    page = browser(member).post(create_url(new), {**filled, field: value, "start": "1"})
    assert page.status_code == 422
    assert message in page.content.decode()


def test_page_shows_groups_and_edges_and_asks_again_until_it_has_ended(
    browser: Browser, viewer: User, roll_out: Callable[..., Rollout], fleet: Fleet
) -> None:
    rollout = roll_out(fleet, max_in_flight="1", groups=[{"percent": 50}])
    jobs.advance(rollout.pk, timezone.now())
    url = reverse("rollouts:rollout", args=[rollout.pk])
    client = browser(viewer)
    text = client.get(url).content.decode()
    assert "On its way" in text
    assert "50 % of the rest" in text
    assert 'hx-trigger="every 3s"' in text
    assert "Abort…" not in text, "a viewer only looks"
    assert "<html" not in client.get(url, **FRAGMENT).content.decode()
    assert client.get(f"{url}?bucket=done").content.decode().count("No edge is there now.") == 1
    Rollout.objects.update(state=State.SUCCEEDED, ended_at=timezone.now())
    assert 'hx-trigger="every 3s"' not in client.get(url).content.decode()


def test_page_says_of_how_many_events_it_shows_the_newest_and_leads_to_all_of_them(
    browser: Browser, viewer: User, roll_out: Callable[..., Rollout], fleet: Fleet
) -> None:
    rollout, client = roll_out(fleet), browser(viewer)
    url = reverse("rollouts:rollout", args=[rollout.pk])
    events = f"{url}/events"
    check_newest_events(client, url, rollout, "paused")

    first, second = (client.get(events, {"page": page}).content.decode() for page in (1, 2))
    assert "Page 1 of 2, 60 in all" in first
    assert "reason-59" in first and "reason-10" in first
    assert "reason-09" in second and "Created" in second


def test_member_pauses_resumes_and_aborts(
    browser: Browser, member: User, roll_out: Callable[..., Rollout], fleet: Fleet
) -> None:
    rollout, client = roll_out(fleet), browser(member)
    for verb, state in (("pause", "paused"), ("resume", "running")):
        assert client.post(reverse(f"rollouts:{verb}", args=[rollout.pk])).status_code == 302
        rollout.refresh_from_db()
        assert rollout.state == state
    url = reverse("rollouts:abort", args=[rollout.pk])
    assert "Also move back" in client.get(url, **FRAGMENT).content.decode()
    client.post(url, {"rollback": "1", "reason": "wrong"})
    rollout.refresh_from_db()
    assert (rollout.state, rollout.reason) == ("rolling back", "wrong")


def test_pages_of_the_pipeline_tell_of_a_rollout_under_way(
    browser: Browser, viewer: User, roll_out: Callable[..., Rollout], fleet: Fleet, new: Publish
) -> None:
    pipeline = new.pipeline_version.pipeline_id
    live = reverse("rollouts:live", args=[pipeline])
    client = browser(viewer)
    for page in ("edges:edges", "publishing:versions"):
        assert f'hx-get="{live}"' in client.get(reverse(page, args=[pipeline])).content.decode()
    assert client.get(live, **FRAGMENT).content.decode().strip() == ""
    rollout = roll_out(fleet)
    assert f"Rollout {rollout.pk}" in client.get(live, **FRAGMENT).content.decode()
    assert f"Rollout {rollout.pk}" in client.get(reverse("rollouts:rollouts", args=[pipeline])).content.decode()


def test_stranger_gets_404(
    browser: Browser, stranger: User, roll_out: Callable[..., Rollout], fleet: Fleet, new: Publish
) -> None:
    rollout, client = roll_out(fleet), browser(stranger)
    pipeline = new.pipeline_version.pipeline_id
    for name in ("rollouts", "create", "live"):
        assert client.get(reverse(f"rollouts:{name}", args=[pipeline])).status_code == 404, name
    for name in ("rollout", "events", "abort"):
        assert client.get(reverse(f"rollouts:{name}", args=[rollout.pk])).status_code == 404, name
    for name in ("pause", "resume", "abort"):
        assert client.post(reverse(f"rollouts:{name}", args=[rollout.pk])).status_code == 404, name


def test_viewer_may_change_nothing(
    browser: Browser, viewer: User, roll_out: Callable[..., Rollout], fleet: Fleet, new: Publish
) -> None:
    rollout, client = roll_out(fleet), browser(viewer)
    for name in ("pause", "resume", "abort"):
        assert client.post(reverse(f"rollouts:{name}", args=[rollout.pk])).status_code == 403, name
    assert client.get(create_url(new)).status_code == 403
