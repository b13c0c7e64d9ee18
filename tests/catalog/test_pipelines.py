from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from catalog import operations, queries
from catalog.models import ModelVersion, Pipeline, PipelineVersion, User, Workspace

Api = Callable[..., APIClient]
MakeModelVersion = Callable[..., ModelVersion]


@pytest.fixture
def pipeline(workspace: Workspace, owner: User) -> Pipeline:
    return operations.create_pipeline(actor=owner, workspace=workspace, name="houseprice")


def step(version: ModelVersion, **changes: str) -> dict[str, Any]:
    reference = {"name": version.model.name, "version": str(version.uuid), "sha": version.sha256} | changes
    return {"ModelInference": {"models": [reference]}}


def test_a_version_is_made_of_steps(
    api: Api, member: User, pipeline: Pipeline, make_model_version: MakeModelVersion
) -> None:
    model = make_model_version()
    answer = api(member).post(f"/api/v1/pipelines/{pipeline.pk}/versions", {"steps": [step(model)]})
    assert answer.status_code == 201, answer.json()
    assert answer.json()["definition"] == {"id": "houseprice", "steps": [step(model)]}
    listed = api(member).get(f"/api/v1/pipelines/{pipeline.pk}/versions").json()["results"]
    assert [version["version"] for version in listed] == [answer.json()["version"]]


def test_a_version_keeps_the_config_of_its_moment(
    owner: User, pipeline: Pipeline, make_model_version: MakeModelVersion
) -> None:
    model = make_model_version()
    version = operations.create_pipeline_version(actor=owner, pipeline=pipeline, steps=[step(model)])
    operations.configure_model_version(actor=owner, version=model, tensor_fields=["other"])
    assert [config.tensor_fields for config in version.model_configs.all()] == [["tensor"]]


def test_the_sha_is_filled_in(owner: User, pipeline: Pipeline, make_model_version: MakeModelVersion) -> None:
    model = make_model_version()
    short = {"ModelInference": {"models": [{"name": model.model.name, "version": str(model.uuid)}]}}
    version = operations.create_pipeline_version(actor=owner, pipeline=pipeline, steps=[short])
    assert version.definition["steps"] == [step(model)]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([], "at least one step"),
        ({"ModelInference": {}}, "at least one step"),
        (["ModelInference"], "object of one key"),
        ([{"Teleport": {}}], "unknown kind 'Teleport'"),
        ([{"RandomSplit": {"weights": []}}], "splits by 1 to 32 weights"),
        ([{"ModelInference": {"models": []}}], "names 1 to 32 models"),
        ([{"ModelInference": {"models": [{"name": "a"}]}}], "version's UUID"),
        ([{"ModelInference": {"models": [{"name": "a", "version": 7}]}}], "version's UUID"),
        ([{"ModelInference": {"models": [{"name": "a", "version": str(uuid4())}]}}], "there is no version"),
        ([{"ModelInference": {"models": [{"name": "a", "version": str(uuid4())}]}}] * 65, "at most 64"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_step(
    api: Api, member: User, pipeline: Pipeline, steps: Any, says: str
) -> None:
    answer = api(member).post(f"/api/v1/pipelines/{pipeline.pk}/versions", {"steps": steps})
    assert answer.status_code == 400
    assert answer.json()["code"] == "unusable_definition"
    assert says in answer.json()["message"]
    assert not PipelineVersion.objects.exists()


def test_a_version_may_split_shadow_and_check(
    api: Api, member: User, pipeline: Pipeline, make_model_version: MakeModelVersion
) -> None:
    one, other = make_model_version(), make_model_version("challenger", b"other")
    short = [{"name": m.model.name, "version": str(m.uuid)} for m in (one, other)]
    whole = [{**reference, "sha": m.sha256} for reference, m in zip(short, (one, other), strict=True)]
    rules = {"rules": {"too_high": {"field": "out.variable[0]", "op": ">", "value": 1000000}}}

    def steps(models: list[dict[str, str]]) -> list[dict[str, Any]]:
        split = {"hash_key": None, "weights": [{"model": model, "weight": 1} for model in models]}
        return [{"RandomSplit": split}, {"Check": rules}]

    url = f"/api/v1/pipelines/{pipeline.pk}/versions"
    answer = api(member).post(url, {"steps": steps(short)}, format="json")
    assert answer.status_code == 201, answer.json()
    assert answer.json()["definition"]["steps"] == steps(whole)
    version = PipelineVersion.objects.get()
    assert {m.pk for m in queries.model_versions_of(version)} == {one.pk, other.pk}
    assert version.model_configs.count() == 2
    assert queries.answering_in(version.definition) == [str(one.uuid)]


def test_steps_that_do_not_fit_are_refused(
    api: Api, member: User, pipeline: Pipeline, make_model_version: MakeModelVersion
) -> None:
    one, other = make_model_version(), make_model_version("second", b"other")
    answer = api(member).post(f"/api/v1/pipelines/{pipeline.pk}/versions", {"steps": [step(one), step(other)]})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Step 2: model second takes rows of shape 18")


def test_another_sha_is_refused(owner: User, pipeline: Pipeline, make_model_version: MakeModelVersion) -> None:
    model = make_model_version()
    with pytest.raises(operations.UnusableDefinition, match="another sha"):
        operations.create_pipeline_version(actor=owner, pipeline=pipeline, steps=[step(model, sha="0" * 64)])


def test_a_model_of_another_workspace_is_refused(
    stranger: User, make_model_version: MakeModelVersion, owner: User
) -> None:
    model = make_model_version()
    elsewhere = operations.create_workspace(actor=stranger, name="elsewhere")
    theirs = operations.create_pipeline(actor=stranger, workspace=elsewhere, name="theirs")
    with pytest.raises(operations.UnusableDefinition, match="there is no version"):
        operations.create_pipeline_version(actor=stranger, pipeline=theirs, steps=[step(model)])


@pytest.mark.parametrize("name", ["", "Upper", "-dash", "dash-", "under_score", "x" * 64, "new\n"])
def test_a_name_that_registries_would_refuse_is_refused(
    api: Api, member: User, workspace: Workspace, name: str
) -> None:
    answer = api(member).post(f"/api/v1/workspaces/{workspace.pk}/pipelines", {"name": name})
    assert answer.status_code == (201 if name.strip() == "new" else 400)


def test_a_taken_name_is_a_conflict(api: Api, member: User, pipeline: Pipeline, workspace: Workspace) -> None:
    answer = api(member).post(f"/api/v1/workspaces/{workspace.pk}/pipelines", {"name": pipeline.name})
    assert answer.status_code == 409


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("stranger", 404)])
def test_only_collaborators_make_versions(
    request: pytest.FixtureRequest, api: Api, pipeline: Pipeline, who: str, status: int
) -> None:
    client = api(request.getfixturevalue(who))
    assert client.post(f"/api/v1/pipelines/{pipeline.pk}/versions", {"steps": []}).status_code == status


@pytest.mark.parametrize(("who", "status"), [("viewer", 200), ("stranger", 404)])
def test_who_may_look(
    request: pytest.FixtureRequest,
    api: Api,
    make_pipeline_version: Callable[..., PipelineVersion],
    who: str,
    status: int,
) -> None:
    version = make_pipeline_version()
    client = api(request.getfixturevalue(who))
    model = ModelVersion.objects.get()
    for path in (
        f"pipelines/{version.pipeline_id}",
        f"pipelines/{version.pipeline_id}/versions",
        f"pipeline-versions/{version.pk}",
        f"models/{model.model_id}",
        f"models/{model.model_id}/versions",
        f"model-versions/{model.pk}",
    ):
        assert client.get(f"/api/v1/{path}").status_code == status, path


@pytest.mark.parametrize("path", ["workspaces/{workspace}/pipelines", "pipelines/{pipeline}/versions"])
def test_a_list_costs_the_same_for_one_row_and_twenty(
    api: Api,
    owner: User,
    make_pipeline_version: Callable[..., PipelineVersion],
    django_assert_max_num_queries: Any,
    path: str,
) -> None:
    version = make_pipeline_version()
    url = "/api/v1/" + path.format(workspace=version.pipeline.workspace_id, pipeline=version.pipeline_id)
    for number in range(20):
        make_pipeline_version(name=f"pipeline-{number}")
        make_pipeline_version()
    with django_assert_max_num_queries(7):
        assert len(api(owner).get(url).json()["results"]) == 21


def test_the_schema_and_its_page_are_served(client: Any, owner: User) -> None:
    client.force_login(owner)
    assert client.get("/api/v1/schema").status_code == 200
    assert b"swagger" in client.get("/api/v1/docs").content
