"""Pages that make pipelines and versions."""

from collections.abc import Callable

import pytest
from django.test import Client

from catalog.models import ModelVersion, Pipeline, PipelineVersion, User, Workspace


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
    chosen = [str(first.uuid), "", str(second.uuid)]
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", {"steps": chosen})
    assert answer["Location"] == f"/pipelines/{pipeline.pk}"
    steps = pipeline.versions.first().definition["steps"]  # type: ignore[union-attr]
    assert [step["ModelInference"]["models"][0]["name"] for step in steps] == ["scale", "estimate"]


def test_form_begins_with_the_newest_versions_steps(
    browser: Callable[..., Client], member: User, pipeline: Pipeline
) -> None:
    page = browser(member).get(f"/pipelines/{pipeline.pk}/versions/new").content.decode()
    assert page.count('name="steps"') == 1
    assert page.count("selected>house-price") == 1


def test_a_step_can_be_added_without_scripts(browser: Callable[..., Client], member: User, pipeline: Pipeline) -> None:
    chosen = ModelVersion.objects.get()
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", {"steps": [str(chosen.uuid)], "more": "1"})
    page = answer.content.decode()
    assert answer.status_code == 200
    assert page.count('name="steps"') == 2
    assert 'role="alert"' not in page
    assert pipeline.versions.count() == 1


def test_no_step_is_refused(browser: Callable[..., Client], member: User, pipeline: Pipeline) -> None:
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", {"steps": [""]})
    assert answer.status_code == 422
    assert "Choose a model version for the first step." in answer.content.decode()
    assert pipeline.versions.count() == 1


def test_models_of_other_workspaces_and_unusable_ones_cannot_be_chosen(
    browser: Callable[..., Client], member: User, pipeline: Pipeline, make_model_version: Callable[..., ModelVersion]
) -> None:
    broken = make_model_version("broken", status=ModelVersion.Status.ERROR)
    page = browser(member).get(f"/pipelines/{pipeline.pk}/versions/new").content.decode()
    assert str(broken.uuid) not in page
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/versions/new", {"steps": [str(broken.uuid)]})
    assert answer.status_code == 422
