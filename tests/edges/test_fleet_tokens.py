"""One token for many devices alike: `/api/v1/publishes/<id>/fleet-tokens`, and joining with it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations, provisioning
from edges.models import Edge, FleetToken
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, join_token_in

Api = Callable[..., APIClient]


def made(api: Api, user: User, publish: Publish, **fields: Any) -> Any:
    body = {"pattern": "shop-{n:04}", "max_edges": 3, **fields}
    return api(user).post(reverse("api-fleet-tokens", args=[publish.pk]), body)


@pytest.fixture
def secret(clock: Clock, api: Api, member: User, publish: Publish) -> str:
    answer = made(api, member, publish, tags=["north"], cpus=2, memory="2Gi")
    assert answer.status_code == 201, answer.content
    assert answer["Cache-Control"] == "no-store"
    return join_token_in(answer.json()["edge_bundle"])


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_each_device_becomes_an_edge_of_its_own(clock: Clock, secret: str, publish: Publish) -> None:
    devices = [Device(clock) for _ in range(3)]
    names = [device.join(secret).json()["edge"]["name"] for device in devices]

    assert names == ["shop-0001", "shop-0002", "shop-0003"]
    for device in devices:
        assert device.checkin().json()["desired"]["publish_id"] == publish.pk
        assert device.token().status_code == 200
    edge = Edge.objects.get(name="shop-0002")
    assert (edge.tags, edge.cpus, edge.memory) == (["north"], 2.0, "2Gi")
    assert [event.kind for event in edge.events.order_by("id")][:2] == ["added", "joined"]
    assert edge.events.get(kind="added").detail["fleet_token"] == FleetToken.objects.get().pk


def test_no_more_edges_are_made_than_allowed(clock: Clock, secret: str) -> None:
    for _ in range(3):
        assert Device(clock).join(secret).status_code == 201

    assert code(Device(clock).join(secret)) == (403, "join_token_used")
    assert Edge.objects.count() == FleetToken.objects.get().made == 3


def test_same_key_may_repeat_and_gets_the_same_edge(clock: Clock, secret: str) -> None:
    device = Device(clock)
    first = device.join(secret).json()["edge"]
    clock.forward(minutes=9)
    assert device.join(secret).json()["edge"] == first
    assert device.checkin().status_code == 200

    clock.forward(minutes=2)
    assert code(device.join(secret)) == (403, "join_token_used")
    assert Edge.objects.count() == 1


def test_names_that_are_in_use_are_passed_over(clock: Clock, secret: str, owner: User, publish: Publish) -> None:
    operations.add_edge(actor=owner, publish=publish, name="shop-0001")

    assert Device(clock).join(secret).json()["edge"]["name"] == "shop-0002"


def test_it_ends_when_it_expires(clock: Clock, secret: str) -> None:
    clock.forward(hours=24)
    assert code(Device(clock).join(secret)) == (403, "join_token_expired")


def test_revoked_it_makes_no_more_edges_and_those_it_made_stay(
    clock: Clock, secret: str, api: Api, member: User
) -> None:
    device = Device(clock)
    device.join(secret)
    token = FleetToken.objects.get()
    answer = api(member).post(reverse("api-fleet-token-revoke", args=[token.pk]), {"reason": "lost a box"})

    assert answer.json()["revoke_reason"] == "lost a box"
    assert answer.json()["revoked_by"] == str(member.public_id)
    assert code(Device(clock).join(secret)) == (403, "join_token_expired")
    assert device.checkin().status_code == 200


def test_removed_edge_of_it_cannot_repeat(clock: Clock, secret: str, owner: User) -> None:
    device = Device(clock)
    device.join(secret)
    operations.remove_edge(actor=owner, edge=Edge.objects.get())

    assert code(device.join(secret)) == (403, "edge_removed")


def test_devices_get_what_replaced_its_publish(
    clock: Clock, secret: str, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    newer = make_publish(publish)
    assert Device(clock).join(secret).json()["desired"]["publish_id"] == newer.pk


@pytest.mark.parametrize(
    "fields",
    [
        {"pattern": "shop"},
        {"pattern": "shop-{n}-{n}"},
        {"pattern": "shop-{n.__class__}"},
        {"pattern": "shop-{n:>9}"},
        {"pattern": "-{n}"},
        {"pattern": "sh op-{n}"},
        {"max_edges": 0},
        {"max_edges": 100_001},
        {"hours": 721},
        {"hours": 0},
        {"memory": "lots"},
    ],
)
def test_wrong_field_is_refused(api: Api, member: User, publish: Publish, fields: dict[str, Any]) -> None:
    assert code(made(api, member, publish, **fields)) == (400, "invalid")
    assert not FleetToken.objects.exists()


def test_only_collaborators_make_list_or_revoke(
    clock: Clock, secret: str, api: Api, viewer: User, stranger: User, publish: Publish
) -> None:
    token = FleetToken.objects.get()
    revoke = reverse("api-fleet-token-revoke", args=[token.pk])

    assert made(api, viewer, publish).status_code == api(viewer).post(revoke).status_code == 403
    assert made(api, stranger, publish).status_code == api(stranger).post(revoke).status_code == 404
    listed = api(viewer).get(reverse("api-fleet-tokens", args=[publish.pk])).json()["results"]
    assert listed[0]["pattern"] == "shop-{n:04}"
    assert secret not in str(listed) and token.digest not in str(listed)


def test_it_cannot_be_made_for_what_was_replaced(
    api: Api, member: User, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    make_publish(publish)
    assert code(made(api, member, publish)) == (409, "publish_replaced")


def test_longest_life_is_thirty_days(clock: Clock, owner: User, publish: Publish) -> None:
    token = provisioning.make_fleet_token(
        actor=owner, publish=publish, pattern="a-{n}", max_edges=1, life=timedelta(days=30)
    )
    clock.forward(days=29, hours=23)
    assert Device(clock).join(join_token_in(token.bundle)).status_code == 201
