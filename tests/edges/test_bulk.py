"""`POST /api/v1/publishes/<id>/edges/bulk`."""

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import User
from edges import operations
from edges.models import Edge, JoinToken
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, join_token_in

Api = Callable[..., APIClient]


def posted(api: Api, user: User, publish: Publish, body: Any, **kwargs: Any) -> Any:
    return api(user).post(reverse("api-publish-edges-bulk", args=[publish.pk]), body, **kwargs)


def csv(api: Api, user: User, publish: Publish, text: str | bytes) -> Any:
    url = reverse("api-publish-edges-bulk", args=[publish.pk])
    return api(user).generic("POST", url, text, content_type="text/csv")


def test_a_thousand_edges_are_added_with_working_bundles(
    clock: Clock, api: Api, member: User, publish: Publish, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(60):
        answer = posted(api, member, publish, [{"name": f"shop-{number}"} for number in range(1000)])

    assert answer.status_code == 201 and answer["Cache-Control"] == "no-store"
    assert [edge["name"] for edge in answer.json()] == [f"shop-{number}" for number in range(1000)]
    assert Edge.objects.count() == JoinToken.objects.count() == 1000
    last = answer.json()[999]
    assert Device(clock).join(join_token_in(last["edge_bundle"])).json()["edge"]["id"] == last["id"]
    event = Edge.objects.get(name="shop-7").events.get()
    assert (event.kind, event.actor) == ("added", member)


def test_csv_is_read(api: Api, member: User, publish: Publish) -> None:
    answer = csv(api, member, publish, "\ufeffname,tags,cpus,memory\r\na,north;cold,2,512Mi\r\nb,,,\r\n")

    assert answer.status_code == 201, answer.content
    assert [(e["name"], e["tags"], e["cpus"], e["memory"]) for e in answer.json()] == [
        ("a", ["north", "cold"], 2.0, "512Mi"),
        ("b", [], 1.0, "1Gi"),
    ]


def test_one_wrong_edge_and_none_is_added(api: Api, member: User, publish: Publish) -> None:
    answer = posted(api, member, publish, [{"name": "good"}, {"name": "not good"}])

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "Edge 2 ('not good')" in answer.json()["message"]
    assert not Edge.objects.exists()


def test_names_in_use_are_told_and_none_is_added(api: Api, member: User, owner: User, publish: Publish) -> None:
    operations.add_edge(actor=owner, publish=publish, name="b")
    answer = posted(api, member, publish, [{"name": name} for name in "abc"])

    assert (answer.status_code, answer.json()["code"], answer.json()["names"]) == (409, "edge_name_taken", ["b"])
    assert Edge.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [[], [{"name": "a"}, {"name": "a"}], [{"name": str(n)} for n in range(1001)], {"edges": "a"}, [{"nom": "a"}], [7]],
)
def test_wrong_list_is_refused(api: Api, member: User, publish: Publish, body: Any) -> None:
    assert posted(api, member, publish, body).status_code == 400
    assert not Edge.objects.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "name,weather\na,wet\n",
        "name,name\na,b\n",
        "name,cpus\na,many\n",
        "name,cpus\na\n",
        "name\na,b\n",
        'name\n"a\n',
        "name\n" + "x" * 200 + "\n",
        b"name\n\xff\n",
    ],
)
def test_wrong_csv_is_refused(api: Api, member: User, publish: Publish, text: str | bytes) -> None:
    answer = csv(api, member, publish, text)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not Edge.objects.exists()


def test_csv_of_a_megabyte_is_too_large(api: Api, member: User, publish: Publish) -> None:
    assert csv(api, member, publish, "name\n" + "a\n" * 600_000).status_code == 413


def test_only_collaborators_add(api: Api, viewer: User, stranger: User, publish: Publish) -> None:
    assert posted(api, viewer, publish, [{"name": "a"}]).status_code == 403
    assert posted(api, stranger, publish, [{"name": "a"}]).status_code == 404
