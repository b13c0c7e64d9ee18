"""What happens at once, by threads with connections of their own, on the database that is configured."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection, connections
from django.utils import timezone

from catalog.models import User
from common.errors import DomainError
from edges import contacts, jobs, operations, provisioning, signing, tokens
from edges.models import Edge, JoinToken, SigningKey, UsedAssertion
from publishing.models import Publish
from tests.edges.conftest import ENGINE, Device, join_token_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_database")]


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Runs all at the same moment. What each returned or, when it was refused, the refusal's code."""
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(index: int) -> None:
        try:
            barrier.wait(30)
            results[index] = works[index]()
        except DomainError as refusal:
            results[index] = refusal.code
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert None not in results, "a thread failed"
    return results


def joining(join_token: str, jwk: dict[str, str]) -> Callable[[], str]:
    return lambda: contacts.join(join_token=join_token, public_key=jwk, engine=ENGINE).edge.key_thumbprint


def a_device() -> Device:
    return Device(clock=None)  # type: ignore[arg-type]


@pytest.fixture
def added_now(owner: User, publish: Publish) -> operations.Added:
    return operations.add_edge(actor=owner, publish=publish, name="houseprice-edge-01")


def test_of_fifty_joins_at_once_one_key_wins(added_now: operations.Added) -> None:
    token = join_token_in(added_now.bundle)
    results = at_once(*(joining(token, a_device().jwk) for _ in range(50)))

    winner = Edge.objects.get().key_thumbprint
    assert Counter(results) == {winner: 1, "join_token_used": 49}
    assert JoinToken.objects.get().key_thumbprint == winner
    assert added_now.edge.events.filter(kind="joined").count() == 1
    assert added_now.edge.events.filter(kind="join_refused").exists()
    assert SigningKey.objects.count() == 1


def test_same_key_many_times_at_once_is_one_join(added_now: operations.Added) -> None:
    token, jwk = join_token_in(added_now.bundle), a_device().jwk
    results = at_once(*(joining(token, jwk) for _ in range(10)))

    assert results == [tokens.thumbprint(jwk)] * 10
    assert added_now.edge.events.filter(kind="joined").count() == 1


def test_many_edges_joining_a_new_center_at_once_share_one_signing_key(owner: User, publish: Publish) -> None:
    bundles = [operations.add_edge(actor=owner, publish=publish, name=f"e{number}").bundle for number in range(10)]
    devices = [a_device() for _ in bundles]
    pairs = zip(bundles, devices, strict=True)
    results = at_once(*(joining(join_token_in(bundle), device.jwk) for bundle, device in pairs))

    assert results == [tokens.thumbprint(device.jwk) for device in devices]
    assert SigningKey.objects.count() == 1


def test_assertion_presented_many_times_at_once_works_once(device: Device) -> None:
    assertion = device.assertion()
    results = at_once(*(lambda: bool(contacts.token(assertion=assertion)) for _ in range(10)))

    assert Counter(results) == {True: 1, "invalid_assertion": 9}
    assert UsedAssertion.objects.count() == 1


def test_join_and_reissue_at_once_end_with_one_way_in(added_now: operations.Added, owner: User) -> None:
    token = join_token_in(added_now.bundle)
    again: list[operations.Added] = []

    def reissue() -> str:
        again.append(operations.reissue_token(actor=owner, edge=added_now.edge))
        return "reissued"

    results = at_once(joining(token, a_device().jwk), *[reissue] * 4)
    assert results.count("reissued") == 4
    assert results[0] in {Edge.objects.get().key_thumbprint, "join_token_expired"}
    assert JoinToken.objects.filter(used_at=None, revoked_at=None).count() == 1


def test_same_name_added_many_times_at_once_is_added_once(owner: User, publish: Publish) -> None:
    def add() -> str:
        return operations.add_edge(actor=owner, publish=publish, name="e").edge.name

    assert Counter(at_once(*[add] * 8)) == {"e": 1, "edge_name_taken": 7}
    assert JoinToken.objects.count() == 1


def test_replacements_followed_many_times_at_once_end_the_same(
    owner: User, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 3)
    old = make_publish()
    for number in range(20):
        operations.add_edge(actor=owner, publish=old, name=f"e{number}")
    new = make_publish(old)
    now = timezone.now()
    results = at_once(
        *[lambda: jobs.follow_replacements(now) or "none"] * 3,
        *[lambda: jobs.follow_publish(new.pk, now) or "none"] * 3,
    )

    assert sum(moved for moved in results if moved != "none") == 20
    assert new.edges.count() == new.assignments.count() == 20
    for edge in Edge.objects.all():
        assert edge.events.filter(kind="moved").count() == 1


def test_check_in_while_edges_move_is_told_the_new_publish(
    device: Device, edge: Edge, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    new = make_publish(publish)
    now = timezone.now()

    def check_in() -> int:
        return contacts.checkin(edge=Edge.objects.get(pk=edge.pk), report={"serving": None}).publish_id

    results = at_once(*[check_in] * 6, lambda: jobs.follow_replacements(now) or "none")
    assert results[:6] == [new.pk] * 6
    assert edge.events.filter(kind="moved").count() == 1


def test_fleet_token_never_makes_more_edges_than_allowed(owner: User, publish: Publish) -> None:
    token = provisioning.make_fleet_token(actor=owner, publish=publish, pattern="shop-{n:02}", max_edges=7)
    secret = join_token_in(token.bundle)
    results = at_once(*(joining(secret, a_device().jwk) for _ in range(20)))

    assert results.count("join_token_used") == 13
    assert sorted(Edge.objects.values_list("name", flat=True)) == [f"shop-0{number}" for number in range(1, 8)]


def test_same_key_with_a_fleet_token_at_once_is_one_edge(owner: User, publish: Publish) -> None:
    token = provisioning.make_fleet_token(actor=owner, publish=publish, pattern="shop-{n}", max_edges=7)
    jwk = a_device().jwk
    results = at_once(*(joining(join_token_in(token.bundle), jwk) for _ in range(8)))

    assert results == [tokens.thumbprint(jwk)] * 8
    assert Edge.objects.count() == 1


def test_two_replacements_at_once_end_in_one_state(
    owner: User, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    for number in range(12):
        operations.add_edge(actor=owner, publish=publish, name=f"e{number}")
    waiting = [make_publish(publish, status=Publish.Status.PUBLISHING, published_at=None) for _ in range(2)]

    def arrive(new: Publish) -> Callable[[], str]:
        def run() -> str:
            Publish.objects.filter(pk=new.pk).update(status=Publish.Status.PUBLISHED, published_at=timezone.now())
            jobs.follow_publish(new.pk, timezone.now())
            return "arrived"

        return run

    assert at_once(*map(arrive, waiting)) == ["arrived"] * 2
    jobs.follow_replacements(timezone.now())
    owners = set(Edge.objects.values_list("publish", flat=True))
    assert len(owners) == 1 and owners <= {new.pk for new in waiting}
    for edge in Edge.objects.all():
        assert edge.events.filter(kind="moved").count() == 1
        assert [a.publish_id for a in edge.assignments.order_by("id")] == [publish.pk, edge.publish_id]


def test_keys_rotated_many_times_at_once_leave_one_that_signs(device: Device) -> None:
    now = timezone.now()
    at_once(*[lambda: signing.rotate(now)] * 4)

    signing.forget_ring()
    assert signing.signer(now).generation == SigningKey.objects.count()
    assert device.token().status_code == 200


def test_removed_while_it_calls_is_refused_or_was_in_time(device: Device, edge: Edge, owner: User) -> None:
    def check_in() -> str:
        contacts.checkin(edge=Edge.objects.get(pk=edge.pk), report={"serving": None})
        return "in time"

    def remove() -> str:
        operations.remove_edge(actor=owner, edge=edge)
        return "removed"

    results = at_once(*[check_in] * 5, remove)
    assert set(results) <= {"in time", "edge_removed", "removed"}
    assert Edge.objects.get().removed_at, "a check-in never brings an edge back"


def test_configured_database_is_the_one_of_production(added_now: operations.Added) -> None:
    if connection.vendor == "sqlite":
        assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
        assert Path(connection.settings_dict["NAME"]).exists()
    else:
        assert configured.DATABASES["default"]["ENGINE"].endswith("postgresql")
