"""Pages that make pipelines and versions."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from catalog.models import ModelVersion, Pipeline, PipelineVersion, User, Workspace


def models(*uuids: str) -> dict[str, Any]:
    """What the form sends for a chain of models."""
    return {"kind": ["model"] * len(uuids), **{f"s{place}-model": uuid for place, uuid in enumerate(uuids)}}


def test_only_collaborators_make_pipelines(statuses: Callable[..., dict[str, int]], workspace: Workspace) -> None:
    address = f"/workspaces/{workspace.pk}/pipelines/new"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
    answers = statuses(address, "post", without=("owner", "member"), name="houseprice")
    assert answers == {"viewer": 403, "stranger": 404}
    assert not Pipeline.objects.exists()


def test_member_makes_a_pipeline_and_goes_on_to_its_first_version(
    browser: Callable[..., Client], workspace: Workspace, member: User
) -> None:
    answer = browser(member).post(f"/workspaces/{workspace.pk}/pipelines/new", {"name": "houseprice"})
    assert answer["Location"] == f"/pipelines/{Pipeline.objects.get().pk}/versions/new"


def test_taken_name_is_told_at_the_field(
    browser: Callable[..., Client], workspace: Workspace, member: User, make_pipeline_version: Callable[..., object]
) -> None:
    make_pipeline_version(name="houseprice")
    answer = browser(member).post(f"/workspaces/{workspace.pk}/pipelines/new", {"name": "houseprice"})
    assert answer.status_code == 422
    assert "already: choose another name" in answer.content.decode()


@pytest.fixture
def pipeline(make_pipeline_version: Callable[..., PipelineVersion]) -> Pipeline:
    return make_pipeline_version().pipeline


def test_only_collaborators_make_versions(statuses: Callable[..., dict[str, int]], pipeline: Pipeline) -> None:
    address = f"/pipelines/{pipeline.pk}/versions/new"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
    answers = statuses(address, "post", without=("owner", "member"))
    assert answers == {"viewer": 403, "stranger": 404}


def test_steps_run_in_the_order_chosen_and_empty_ones_are_left_out(
    browser: Callable[..., Client], pipeline: Pipeline, member: User, make_model_version: Callable[..., ModelVersion]
) -> None:
    scaled = [{"name": "scaled", "type": "float32", "shape": [None, 18]}]
    first, second = make_model_version("scale", outputs=scaled), make_model_version("estimate")
    sent = models(str(first.uuid), "", str(second.uuid))
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", sent)
    assert answer["Location"] == f"/pipelines/{pipeline.pk}"
    steps = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert [step["ModelInference"]["models"][0]["name"] for step in steps] == ["scale", "estimate"]


def test_form_begins_with_the_newest_versions_steps(
    browser: Callable[..., Client], member: User, pipeline: Pipeline
) -> None:
    page = browser(member).get(f"/pipelines/{pipeline.pk}/versions/new").content.decode()
    assert page.count('name="kind"') == 1
    assert page.count("selected>house-price") == 1


def test_a_step_can_be_added_without_scripts(browser: Callable[..., Client], member: User, pipeline: Pipeline) -> None:
    chosen = ModelVersion.objects.get()
    answer = browser(member).post(
        f"/pipelines/{pipeline.pk}/versions/new", models(str(chosen.uuid)) | {"more": "model"}
    )
    page = answer.content.decode()
    assert answer.status_code == 200
    assert page.count('name="kind"') == 2
    assert 'role="alert"' not in page
    assert pipeline.versions.count() == 1


def test_no_step_is_refused(browser: Callable[..., Client], member: User, pipeline: Pipeline) -> None:
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", models(""))
    assert answer.status_code == 422
    assert "Choose a model version for the first step." in answer.content.decode()
    assert pipeline.versions.count() == 1


def test_models_of_other_workspaces_and_unusable_ones_cannot_be_chosen(
    browser: Callable[..., Client], member: User, pipeline: Pipeline, make_model_version: Callable[..., ModelVersion]
) -> None:
    broken = make_model_version("broken", status=ModelVersion.Status.ERROR)
    page = browser(member).get(f"/pipelines/{pipeline.pk}/versions/new").content.decode()
    assert str(broken.uuid) not in page
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", models(str(broken.uuid)))
    assert answer.status_code == 422


def test_split_shadow_routes_and_validations_are_built_and_read_back(
    browser: Callable[..., Client], pipeline: Pipeline, member: User, make_model_version: Callable[..., ModelVersion]
) -> None:
    first, second = make_model_version("first", content=b"1"), make_model_version("second", content=b"2")
    one, two = str(first.uuid), str(second.uuid)
    sent = {
        "kind": ["split", "check"],
        "s0-arm": [one, two, ""],
        "s0-arm-to": ["2", "1", ""],
        "s0-key": "customer",
        "s1-rule": ["too_high", ""],
        "s1-field": ["out.variable[0]", ""],
        "s1-op": [">", ">"],
        "s1-value": ["1000000", ""],
    }
    client, address = browser(member), f"/pipelines/{pipeline.pk}/versions/new"
    assert client.post(address, sent).status_code == 302
    split, check = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert split["RandomSplit"]["hash_key"] == "customer"
    assert [(arm["model"]["name"], arm["weight"]) for arm in split["RandomSplit"]["weights"]] == [
        ("first", 2.0),
        ("second", 1.0),
    ]
    assert check["Check"]["rules"] == {"too_high": {"field": "out.variable[0]", "op": ">", "value": 1000000}}
    page = client.get(address).content.decode()
    assert 'value="too_high"' in page
    assert 'value="customer"' in page
    sent = {"kind": ["model"], "s0-model": one, "s0-shadow": [two, ""]}
    assert client.post(address, sent).status_code == 302
    (step,) = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert [model["name"] for model in step["ModelInference"]["models"]] == ["first", "second"]
    sent = {"kind": ["routes"], "s0-key": "region", "s0-model": one, "s0-arm": ["north", ""], "s0-arm-to": [two, ""]}
    assert client.post(address, sent).status_code == 302
    (step,) = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert step["MetaValueSplit"]["routes"]["north"]["name"] == "second"
    assert step["MetaValueSplit"]["control"]["name"] == "first"


def test_step_that_the_form_does_not_know_is_kept_as_json(
    browser: Callable[..., Client], pipeline: Pipeline, member: User, make_model_version: Callable[..., ModelVersion]
) -> None:
    one, two = make_model_version("first", content=b"1"), make_model_version("second", content=b"2")
    client, address = browser(member), f"/pipelines/{pipeline.pk}/versions/new"
    sent = {
        "kind": ["model", "json"],
        "s0-model": str(one.uuid),
        "s0-shadow": [str(two.uuid)],
        "s1-json": '{"AuditResults": {"from": 1, "to": null}}',
    }
    assert client.post(address, sent).status_code == 302
    steps = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert steps[1] == {"AuditResults": {"from": 1, "to": None}}
    assert "AuditResults" in client.get(address).content.decode()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"kind": ["json"], "s0-json": "{"}, "Step 1 is not JSON."),
        ({"kind": ["check"], "s0-rule": "x", "s0-field": "nothing", "s0-op": ">", "s0-value": "1"}, "Step 1"),
        ({"kind": ["split"], "s0-arm": ["nobody"], "s0-arm-to": ["1"]}, "choose a model version from the list"),
    ],
)
def test_refused_steps_say_which_and_keep_what_was_typed(
    browser: Callable[..., Client], pipeline: Pipeline, member: User, sent: dict[str, Any], told: str
) -> None:
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", sent)
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert pipeline.versions.count() == 1


def test_step_is_taken_out_without_scripts(browser: Callable[..., Client], pipeline: Pipeline, member: User) -> None:
    chosen = str(ModelVersion.objects.get().uuid)
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", models(chosen, chosen) | {"less": "1"})
    assert answer.content.decode().count('name="kind"') == 1


def test_model_version_is_configured_by_collaborators(
    browser: Callable[..., Client], statuses: Callable[..., dict[str, int]], pipeline: Pipeline, member: User
) -> None:
    version = ModelVersion.objects.get()
    address = f"/model-versions/{version.pk}/configure"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
    assert statuses(address, "post", without=("owner", "member")) == {"viewer": 403, "stranger": 404}
    sent = {"tensor_fields": "a", "max_rows": "32", "max_wait_us": "250"}
    assert browser(member).post(address, sent).status_code == 302
    config = version.configs.first()
    assert config is not None
    assert config.tensor_fields == ["a"]
    assert config.batching == {"max_rows": 32, "max_wait_us": 250}
    page = browser(member).get(f"/models/{version.model_id}").content.decode()
    assert "up to 32 rows" in page
