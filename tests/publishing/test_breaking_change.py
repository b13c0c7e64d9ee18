"""`POST /api/v1/pipelines/<id>/publishes` with `replaces` that would break callers."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import ModelVersion, PipelineVersion, User
from publishing.models import Publish
from tests.fakes.oci import FakeRegistry

Api = Callable[..., APIClient]
WIDE = [{"name": "tensor", "type": "float32", "shape": [None, 20]}]
MORE = [
    {"name": "variable", "type": "float32", "shape": [None, 1]},
    {"name": "interval", "type": "float32", "shape": [None, 2]},
]


@pytest.fixture
def old(to_fake: FakeRegistry, make_publish: Callable[..., Publish]) -> Publish:
    return make_publish(status=Publish.Status.PUBLISHED)


@pytest.fixture
def make_new(
    make_model_version: Callable[..., ModelVersion], make_pipeline_version: Callable[..., PipelineVersion]
) -> Callable[..., PipelineVersion]:
    return lambda **fields: make_pipeline_version(make_model_version(content=b"other", **fields))


def posted(api: Api, user: User, version: PipelineVersion, old: Publish, **body: Any) -> Any:
    url = reverse("api-publishes", args=[version.pipeline_id])
    return api(user).post(url, {"pipeline_version": version.pk, "replaces": [old.pk], **body})


def test_breaking_change_is_refused_with_what_breaks(
    api: Api, member: User, old: Publish, make_new: Callable[..., PipelineVersion]
) -> None:
    answer = posted(api, member, make_new(inputs=WIDE), old)

    assert (answer.status_code, answer.json()["code"]) == (409, "breaking_change")
    assert answer.json()["differences"] == [
        {
            "publish": old.pk,
            "where": "input",
            "name": "tensor",
            "old": "float32[any, 18]",
            "new": "float32[any, 20]",
            "change": "breaking",
            "text": "The input tensor changes from float32[any, 18] to float32[any, 20].",
        }
    ]
    assert "allow_breaking" in answer.json()["message"]
    assert Publish.objects.count() == 1


def test_breaking_change_that_is_meant_goes_on(
    api: Api, member: User, old: Publish, make_new: Callable[..., PipelineVersion]
) -> None:
    assert posted(api, member, make_new(inputs=WIDE), old, allow_breaking=True).status_code == 202


@pytest.mark.parametrize("fields", [{}, {"outputs": MORE}])
def test_same_and_widening_need_no_word(
    api: Api, member: User, old: Publish, make_new: Callable[..., PipelineVersion], fields: dict[str, Any]
) -> None:
    assert posted(api, member, make_new(**fields), old).status_code == 202


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (None, 202),
        ({"field": "out.variable[0]", "op": ">", "value": 1}, 202),
        ({"field": "in.float_input", "op": ">", "value": 1}, 409),
    ],
)
def test_only_input_may_be_renamed_where_the_engine_takes_it_by_position(
    api: Api,
    member: User,
    old: Publish,
    make_new: Callable[..., PipelineVersion],
    check: dict[str, Any] | None,
    status: int,
) -> None:
    new = make_new(inputs=[{"name": "float_input", "type": "float32", "shape": [None, 18]}])
    new.model_configs.update(tensor_fields=None)
    if check:
        new.definition["steps"].append({"Check": {"rules": {"rule": check}}})
        new.save()
    answer = posted(api, member, new, old)

    assert answer.status_code == status, answer.json()


def test_columns_that_callers_send_are_compared_not_the_models_names(
    api: Api, member: User, old: Publish, make_new: Callable[..., PipelineVersion]
) -> None:
    # Its config calls the column `tensor`, whatever the model calls its input.
    renamed = [{"name": "float_input", "type": "float32", "shape": [None, 18]}]
    assert posted(api, member, make_new(inputs=renamed), old).status_code == 202


def test_page_asks_before_it_breaks(
    browser: Callable[..., Client], member: User, old: Publish, make_new: Callable[..., PipelineVersion]
) -> None:
    version = make_new(inputs=WIDE)
    url = reverse("publishing:replace", args=[version.pk])
    assert b'name="allow_breaking"' in browser(member).get(url).content

    refused = browser(member).post(url, {"replaces": [old.pk]})
    assert refused.status_code == 422
    assert Publish.objects.count() == 1
    browser(member).post(url, {"replaces": [old.pk], "allow_breaking": "true"})
    assert Publish.objects.count() == 2


def test_publish_cannot_replace_itself_or_make_a_circle(
    api: Api, member: User, old: Publish, make_new: Callable[..., PipelineVersion]
) -> None:
    # What replaces is always new, and what is replaced was published before: the ids only go up.
    made = posted(api, member, make_new(), old).json()
    assert all(replaced["id"] < made["id"] for replaced in made["replaces"])
    answer = posted(api, member, make_new(), old, replaces=[made["id"]])
    assert (answer.status_code, answer.json()["code"]) == (409, "not_published")
    patched = api(member).patch(f"/api/v1/publishes/{old.pk}", {"replaces": [made["id"]]})
    assert patched.status_code == 405, "no way to add to replaces later"
