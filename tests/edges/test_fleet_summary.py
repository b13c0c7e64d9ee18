"""`GET /api/v1/fleet/summary`, and everything that `explain` tells."""

from collections.abc import Callable
from typing import Any

from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import User
from edges import health, operations
from edges.models import Edge
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, golden, join_token_in

Api = Callable[..., APIClient]
URL = "/api/v1/fleet/summary"


def test_summary_counts_states_and_names_who_lapses_soon(
    clock: Clock, api: Api, viewer: User, owner: User, device: Device, edge: Edge, publish: Publish
) -> None:
    device.checkin(serving=device.serving(publish))
    clock.forward(days=6)
    fresh = Device(clock)
    fresh.join(join_token_in(operations.add_edge(actor=owner, publish=publish, name="fresh").bundle))
    fresh.checkin(serving=None, update={"state": "failed", "error": "x"})
    operations.add_edge(actor=owner, publish=publish, name="never")
    operations.ban_edge(actor=owner, edge=operations.add_edge(actor=owner, publish=publish, name="bad").edge)
    operations.remove_edge(actor=owner, edge=operations.add_edge(actor=owner, publish=publish, name="gone").edge)

    found = api(viewer).get(URL).json()
    assert found["total"] == 4
    some = {state: count for state, count in found["states"].items() if count}
    assert some == {"session lapsing": 1, "online": 1, "never joined": 1, "banned": 1}
    assert (found["as_they_should"], found["failed_updates"], found["lapsing_total"]) == (1, 1, 1)
    assert found["lapsing"][0]["name"] == edge.name
    assert api(viewer).get(URL, {"hours": 12}).json()["lapsing"] == []


def test_stranger_sees_no_edge_in_it(api: Api, stranger: User, edge: Edge) -> None:
    assert api(stranger).get(URL).json()["total"] == 0
    assert api().get(URL).status_code == 401


def test_summary_costs_the_same_for_many(
    api: Api, owner: User, publish: Publish, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        operations.add_edge(actor=owner, publish=publish, name=f"e{number}")
    client = api(owner)
    with django_assert_max_num_queries(3):
        client.get(URL)


def test_explain_is_whole_and_the_page_says_the_same(
    clock: Clock, api: Api, viewer: User, browser: Callable[..., Client], device: Device, edge: Edge, publish: Publish
) -> None:
    body = golden("checkin.request.json")
    ahead = int(clock.now.timestamp() * 1000) + 7_200_000
    device.checkin(
        serving=None,
        update={"state": "failed", "error": "the disk is full"},
        engine={**body["engine"], "started_at": ahead - 3 * 86_400_000},
        logs={**body["logs"], "last_sequence": 1500, "acked": 300, "shed": 20},
        disk={"free": 5, "total": 100},
        resources={"cpus": 2, "memory": 1 << 30, "memory_used": 1000 << 20},
        clock=ahead,
    )
    # Somebody else tries the spent bundle.
    operations.reissue_token(actor=publish.created_by, edge=edge)

    found = api(viewer).get(f"/api/v1/edges/{edge.pk}/explain").json()
    lines = " ".join(found["lines"])
    for said in (
        f"It should run publish {publish.pk}",
        "could not take up",
        "the disk is full",
        "Engine 0.1.0 on x86_64, up 3 days.",
        "Its clock is 2 hours ahead",
        "It uses 1000.0 MiB of 1.0 GiB memory: give it more",
        "5% of its disk is free: make room",
        "1,200 of its rows wait",
        "shed 20 rows",
        "it would need a new bundle after 2026-11-27 12:00 UTC",
        "Put right what its error says",
    ):
        assert said in lines, said
    assert found["health"] == {
        "reported_at": int(clock.now.timestamp() * 1000),
        "engine_version": "0.1.0",
        "arch": "x86_64",
        "uptime": 3 * 86_400,
        "clock_offset": 7_200_000,
        "cpus": 2,
        "memory": 1 << 30,
        "memory_used": 1000 << 20,
        "disk_free": 0.05,
        "log_backlog": 1200,
        "shed_rows": 20,
    }
    page = browser(viewer).get(reverse("edges:edge", args=[edge.pk])).content.decode()
    for line in found["lines"]:
        assert line in page


def test_last_refusal_is_told_with_its_cause(
    clock: Clock, api: Api, viewer: User, device: Device, added: operations.Added, edge: Edge
) -> None:
    Device(clock).join(join_token_in(added.bundle))

    lines = api(viewer).get(f"/api/v1/edges/{edge.pk}/explain").json()["lines"]
    assert any(line.startswith("Last refused at 2026-11-20 12:00 UTC: This join token was used") for line in lines)


def test_report_of_nothing_says_nothing() -> None:
    assert health.sentences(health.of_report({})) == []
    assert health.sentences(health.of_report({"engine": None, "disk": {"free": 1, "total": 0}, "logs": 7})) == []


def test_every_verb_of_people_is_an_event_with_who_and_why(api: Api, member: User, edge: Edge) -> None:
    for verb in ("ban", "unban", "reissue"):
        assert api(member).post(f"/api/v1/edges/{edge.pk}/{verb}", {"reason": f"why {verb}"}).status_code < 300
    assert api(member).delete(f"/api/v1/edges/{edge.pk}?reason=why+remove").status_code == 204

    told = [(e.kind, e.actor, e.detail["reason"]) for e in edge.events.exclude(kind="added").order_by("id")]
    assert told == [
        ("banned", member, "why ban"),
        ("unbanned", member, "why unban"),
        ("token_reissued", member, "why reissue"),
        ("removed", member, "why remove"),
    ]
