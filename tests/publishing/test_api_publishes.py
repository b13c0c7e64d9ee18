"""`/api/v1/pipelines/<id>/publishes`, `/api/v1/publishes/<id>` and its retry."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from publishing import jobs
from publishing.models import Publish, RegistrySettings
from tests.fakes.oci import FakeRegistry

Status = Publish.Status
Api = Callable[..., APIClient]


@pytest.fixture
def version(make_pipeline_version: Callable[..., PipelineVersion], to_fake: FakeRegistry) -> PipelineVersion:
    return make_pipeline_version()


@pytest.fixture
def url(version: PipelineVersion) -> str:
    return f"/api/v1/pipelines/{version.pipeline_id}/publishes"


def test_a_publish_is_accepted_with_202(api: Api, member: User, version: PipelineVersion, url: str):
    answer = api(member).post(url, {"pipeline_version": version.pk})
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "PendingPublish" and body["pipeline_version"] == version.pk
    assert body["pipeline_version_name"] == str(version.uuid) and body["pipeline_name"] == "houseprice"
    assert body["created_by"] == str(member.public_id)
    assert body["progress"] == {"step": "", "bytes_done": 0, "bytes_total": 0}
    assert body["helm"] is None and body["commands"] == [] and body["docker_run_variables"] == {}
    assert body["engine_config"].keys() == {"engine", "engineAux", "enginelb"}


def test_the_newest_version_is_published_when_none_is_named(
    api: Api, member: User, version: PipelineVersion, url: str, make_pipeline_version: Callable[..., PipelineVersion]
):
    newest = make_pipeline_version()
    assert api(member).post(url, {}).json()["pipeline_version"] == newest.pk


def test_a_published_one_tells_where_it_is_and_how_to_run_it(
    api: Api, member: User, version: PipelineVersion, url: str, to_fake: FakeRegistry
):
    made = api(member).post(url, {}).json()
    assert jobs.publish(made["id"])
    body = api(member).get(f"/api/v1/publishes/{made['id']}").json()
    assert body["status"] == "Published" and body["published_at"]
    assert body["pipeline_url"] == f"{to_fake.host}/ml/pipelines/houseprice:{version.uuid}"
    assert body["docker_run_variables"] == {"PIPELINE_URL": body["pipeline_url"], "OCI_PLAIN_HTTP": "true"}
    assert body["helm"] == {
        "reference": f"{to_fake.host}/ml/charts/houseprice@{body['chart_digest']}",
        "chart": f"{to_fake.host}/ml/charts/houseprice",
        "version": f"0.0.1-{version.uuid}",
        "values": {},
    }
    titles = [command["title"] for command in body["commands"] if not command["title"].startswith("GitOps: ")]
    assert titles == ["docker run", "podman run", "compose.yaml", "helm install", "helm upgrade", "opsengine serve"]
    assert body["progress"]["bytes_done"] == body["progress"]["bytes_total"] > 0


def test_a_failed_one_tells_why_and_can_be_retried(
    api: Api, member: User, url: str, version: PipelineVersion, to_fake: FakeRegistry
):
    to_fake.fail("POST", "/uploads/", status=403)
    made = api(member).post(url, {}).json()
    jobs.publish(made["id"])
    body = api(member).get(f"/api/v1/publishes/{made['id']}").json()
    assert body["status"] == "Error" and "give it push rights to ml/pipelines/houseprice" in body["error"]
    again = api(member).post(f"/api/v1/publishes/{made['id']}/retry")
    assert (again.status_code, again.json()["status"], again.json()["error"]) == (202, "PendingPublish", "")
    assert jobs.publish(made["id"])


def test_retrying_what_did_not_fail_is_409(api: Api, member: User, make_publish: Callable[..., Publish], to_fake: Any):
    answer = api(member).post(f"/api/v1/publishes/{make_publish().pk}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_failed")


def test_the_list_is_newest_first_and_paged(
    api: Api, viewer: User, url: str, version: PipelineVersion, make_publish: Callable[..., Publish]
):
    made = [make_publish(version).pk for _ in range(3)]
    body = api(viewer).get(url, {"limit": 2}).json()
    assert body["count"] == 3
    assert [item["id"] for item in body["results"]] == made[:0:-1]


def test_the_list_needs_few_queries_however_long(
    api: Api,
    viewer: User,
    url: str,
    version: PipelineVersion,
    make_publish: Callable[..., Publish],
    django_assert_max_num_queries: Any,
):
    old = make_publish(version)
    for _ in range(20):
        make_publish(version).replaces.add(old)
    with django_assert_max_num_queries(10):
        assert len(api(viewer).get(url).json()["results"]) == 21


def test_what_is_replaced_is_told(
    api: Api, member: User, url: str, version: PipelineVersion, make_publish: Callable[..., Publish]
):
    old = make_publish(version, status=Status.PUBLISHED)
    body = api(member).post(url, {"replaces": [old.pk]}).json()
    assert body["replaces"] == [
        {"id": old.pk, "pipeline_name": "houseprice", "pipeline_version_name": str(version.uuid)}
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"replaces": [999]}, 404, "not_found"),
        ({"replaces": "all"}, 400, "invalid"),
        ({"pipeline_version": 999}, 404, "not_found"),
        ({"engine_config": {"engine": {"cpu": "x"}}}, 400, "unusable_engine_config"),
        ({"engine_config": []}, 400, "invalid"),
    ],
)
def test_wrong_input_is_refused(api: Api, member: User, url: str, body: dict[str, Any], status: int, code: str):
    answer = api(member).post(url, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Publish.objects.exists()


def test_a_version_of_another_pipeline_is_not_found(
    api: Api, member: User, url: str, make_pipeline_version: Callable[..., PipelineVersion]
):
    other = make_pipeline_version(name="other")
    assert api(member).post(url, {"pipeline_version": other.pk}).status_code == 404


def test_a_pipeline_without_versions_says_so(api: Api, member: User, version: PipelineVersion, to_fake: Any):
    empty = version.pipeline.workspace.pipelines.create(name="empty", created_by=member)
    answer = api(member).post(f"/api/v1/pipelines/{empty.pk}/publishes", {})
    assert (answer.status_code, answer.json()["message"]) == (404, "The pipeline empty has no version yet.")


def test_without_a_registry_it_is_409_and_says_where_to_configure_one(api: Api, member: User, url: str):
    RegistrySettings.objects.all().delete()
    answer = api(member).post(url, {})
    assert (answer.status_code, answer.json()["code"]) == (409, "registry_not_configured")
    assert "Registry settings" in answer.json()["message"]


@pytest.mark.parametrize(("path", "method"), [("", "get"), ("", "post")])
def test_a_stranger_gets_404_for_the_pipeline(api: Api, stranger: User, url: str, path: str, method: str):
    assert getattr(api(stranger), method)(url + path).status_code == 404


@pytest.mark.parametrize(("path", "method"), [("", "get"), ("/retry", "post")])
def test_a_stranger_gets_404_for_the_publish(
    api: Api, stranger: User, make_publish: Callable[..., Publish], path: str, method: str
):
    url = f"/api/v1/publishes/{make_publish(status=Status.ERROR).pk}{path}"
    assert getattr(api(stranger), method)(url).status_code == 404


def test_a_viewer_reads_and_gets_403_for_the_rest(
    api: Api, viewer: User, url: str, version: PipelineVersion, make_publish: Callable[..., Publish]
):
    made = make_publish(version, status=Status.ERROR)
    assert api(viewer).get(url).status_code == 200
    assert api(viewer).get(f"/api/v1/publishes/{made.pk}").status_code == 200
    assert api(viewer).post(url, {}).status_code == 403
    assert api(viewer).post(f"/api/v1/publishes/{made.pk}/retry").status_code == 403


def test_nobody_gets_401(api: Api, url: str):
    assert api().get(url).status_code == 401
    assert api().post(url, {}).status_code == 401
