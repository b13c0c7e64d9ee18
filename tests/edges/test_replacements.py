from collections.abc import Callable

import pytest
from django.conf import settings as configured
from django.utils import timezone

from catalog.models import User
from edges import jobs, operations, queries, tasks
from edges.models import Edge
from publishing.models import Publish

Make = Callable[..., Publish]


@pytest.fixture
def add(owner: User) -> Callable[[Publish, str], Edge]:
    return lambda publish, name: operations.add_edge(actor=owner, publish=publish, name=name).edge


Add = Callable[[Publish, str], Edge]


def runs(edge: Edge) -> int:
    return Edge.objects.get(pk=edge.pk).publish_id


def test_edges_follow_a_published_replacement_with_the_same_id_and_name(make_publish: Make, add: Add) -> None:
    old, bystander = make_publish(), make_publish(pipeline="other")
    edges = [add(old, "a"), add(old, "b")]
    apart = add(bystander, "c")
    new = make_publish(old, pipeline="condoprice")

    assert tasks.follow_publish(new.pk) == 2
    assert [runs(edge) for edge in edges] == [new.pk, new.pk]
    assert runs(apart) == bystander.pk
    assert [edge.name for edge in new.edges.all()] == ["a", "b"]
    moved = edges[0].events.get(kind="moved")
    assert (moved.detail, moved.actor) == ({"from": old.pk, "to": new.pk}, None)
    assert list(edges[0].assignments.values_list("publish", flat=True)) == [new.pk, old.pk]


@pytest.mark.parametrize("status", ["PendingPublish", "Publishing", "Error"])
def test_edges_stay_until_the_replacement_is_published(make_publish: Make, add: Add, status: str) -> None:
    old = make_publish()
    edge = add(old, "a")
    new = make_publish(old, status=status)

    assert tasks.follow_publish(new.pk) == tasks.follow_replacements() == 0
    assert runs(edge) == old.pk


def test_edges_go_straight_to_the_newest_of_a_chain(make_publish: Make, add: Add) -> None:
    first = make_publish()
    edge = add(first, "a")
    second = make_publish(first)
    third = make_publish(second)

    assert tasks.follow_replacements() == 1
    assert runs(edge) == third.pk
    assert list(edge.assignments.values_list("publish", flat=True)) == [third.pk, first.pk]


def test_one_replacement_gathers_edges_of_several(make_publish: Make, add: Add) -> None:
    left, right = make_publish(), make_publish(pipeline="other")
    edges = [add(left, "a"), add(right, "b")]
    new = make_publish(left, right)

    assert tasks.follow_publish(new.pk) == 2
    assert [runs(edge) for edge in edges] == [new.pk, new.pk]


def test_second_replacement_of_the_same_publish_finds_no_edges(make_publish: Make, add: Add) -> None:
    old = make_publish()
    edge = add(old, "a")
    taker, late = make_publish(old), make_publish(old)

    # Looked for late, the end is that of looking in time.
    assert tasks.follow_publish(late.pk) == 1
    assert runs(edge) == taker.pk


def test_circle_of_replacements_ends(make_publish: Make, add: Add) -> None:
    first = make_publish()
    edge = add(first, "a")
    second = make_publish(first)
    first.replaces.add(second)

    assert tasks.follow_replacements() == 1
    assert runs(edge) == second.pk


def test_running_again_changes_nothing(make_publish: Make, add: Add) -> None:
    old = make_publish()
    edge = add(old, "a")
    make_publish(old)

    assert [tasks.follow_replacements() for _ in range(3)] == [1, 0, 0]
    assert edge.assignments.count() == 2


def test_removed_edges_stay_where_they_were(make_publish: Make, add: Add, owner: User) -> None:
    old = make_publish()
    edge = add(old, "a")
    operations.remove_edge(actor=owner, edge=edge)
    new = make_publish(old)
    assert tasks.follow_replacements() == 0

    other = Edge.objects.create(name="b", publish=old, created_by=owner)
    assert tasks.follow_replacements() == 1
    assert (runs(edge), runs(other)) == (old.pk, new.pk)


def test_many_edges_are_moved_in_batches(make_publish: Make, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BATCH", 3)
    old = make_publish()
    Edge.objects.bulk_create(Edge(name=f"e{number}", publish=old, created_by=owner) for number in range(10))
    new = make_publish(old)

    assert jobs.follow_replacements(timezone.now()) == 10
    assert new.edges.count() == new.assignments.count() == 10


def test_nothing_to_do_costs_one_query(
    make_publish: Make, add: Add, django_assert_num_queries: Callable[..., Add]
) -> None:
    add(make_publish(), "a")

    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        tasks.follow_replacements()


def test_edge_is_not_added_to_a_replaced_publish(make_publish: Make, add: Add) -> None:
    old = make_publish()
    new = make_publish(old)

    with pytest.raises(Exception, match=f"replaced by publish {new.pk}") as refused:
        add(old, "a")
    assert refused.value.data == {"publish_id": new.pk}  # type: ignore[attr-defined]
    assert not queries.successor_of(new)


def test_tasks_have_the_names_that_the_settings_call() -> None:
    scheduled = {entry["task"] for entry in configured.CELERY_BEAT_SCHEDULE.values()}

    assert {tasks.follow_replacements.name, tasks.prune_assertions.name} <= scheduled
    assert tasks.follow_publish.name in configured.PUBLISHED_TASKS
