"""The Version History, publishing by its black box, replacing, and what is told of a publish."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import PipelineVersion, User
from publishing.models import Publish, RegistrySettings

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def registry(db: None, sent: list[Any]) -> RegistrySettings:
    return RegistrySettings.objects.create(pk=1, registry="registry.example.com", repository="ml")


@pytest.fixture
def version(make_pipeline_version: Callable[..., PipelineVersion]) -> PipelineVersion:
    return make_pipeline_version()


@pytest.fixture
def published(make_publish: Callable[..., Publish]) -> Callable[..., Publish]:
    """`published(version)` is one that has arrived."""

    def make(version: PipelineVersion, **fields: Any) -> Publish:
        place = f"registry.example.com/ml/pipelines/{version.pipeline.name}:{version.uuid}"
        pipeline = {"pipeline_url": place, "pipeline_digest": f"sha256:{version.pk:064x}"}
        chart = {"chart_url": "registry.example.com/ml/charts/houseprice", "chart_version": "0.0.1-1"}
        values = {"status": Publish.Status.PUBLISHED} | pipeline | chart
        return make_publish(version, **(values | fields))

    return make


def test_everybody_in_the_workspace_sees_the_history(
    statuses: Callable[..., dict[str, int]], version: PipelineVersion, published: Callable[..., Publish]
) -> None:
    seen = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    assert statuses(f"/pipelines/{version.pipeline_id}") == seen
    assert statuses(f"/publishes/{published(version).pk}") == seen
    moved = {"owner": 302, "member": 302, "viewer": 302, "stranger": 404}
    assert statuses(f"/pipeline-versions/{version.pk}") == moved


def test_only_collaborators_publish_replace_and_retry(
    statuses: Callable[..., dict[str, int]], version: PipelineVersion, make_publish: Callable[..., Publish]
) -> None:
    refused = {"viewer": 403, "stranger": 404}
    but = ("owner", "member")
    failed = make_publish(version, status=Publish.Status.ERROR)
    assert statuses(f"/pipeline-versions/{version.pk}/publish", "post", without=but) == refused
    assert statuses(f"/pipeline-versions/{version.pk}/replace", "post", without=but) == refused
    assert statuses(f"/pipeline-versions/{version.pk}/replace") == refused | {"owner": 200, "member": 200}
    assert statuses(f"/publishes/{failed.pk}/retry", "post", without=but) == refused
    assert Publish.objects.count() == 1


def test_black_box_publishes_and_the_line_then_asks_how_far_it_is(
    browser: Callable[..., Client], version: PipelineVersion, member: User, sent: list[Any]
) -> None:
    client = browser(member)
    page = client.get(f"/pipelines/{version.pipeline_id}").content.decode()
    assert '<button type="submit" class="box box-open">' in page
    answer = client.post(f"/pipeline-versions/{version.pk}/publish", headers=HTMX)
    line = answer.content.decode()
    assert answer["HX-Retarget"] == f"#version-{version.pk}"
    assert "<html" not in line
    assert f'hx-get="/pipeline-versions/{version.pk}" hx-trigger="every 1s"' in line
    assert "box-open" not in line
    assert Publish.objects.get().created_by == member


def test_publishing_without_scripts_comes_back_to_the_line(
    browser: Callable[..., Client], version: PipelineVersion, member: User
) -> None:
    answer = browser(member).post(f"/pipeline-versions/{version.pk}/publish")
    assert answer["Location"] == f"/pipelines/{version.pipeline_id}#version-{version.pk}"


def test_progress_shows_step_and_bytes_and_is_asked_for_again(
    browser: Callable[..., Client], version: PipelineVersion, viewer: User, make_publish: Callable[..., Publish]
) -> None:
    make_publish(version, status="Publishing", step="Models", bytes_done=512 * 1024, bytes_total=2 * 1024**2)
    line = browser(viewer).get(f"/pipeline-versions/{version.pk}", headers=HTMX).content.decode()
    assert "Models" in line
    assert 'max="100" value="25"' in line
    assert "512.0\xa0KB of 2.0\xa0MB" in line
    assert "every 1s" in line


def test_finished_line_is_grey_offers_its_details_and_asks_no_more(
    browser: Callable[..., Client], version: PipelineVersion, member: User, published: Callable[..., Publish]
) -> None:
    publish = published(version)
    line = browser(member).get(f"/pipeline-versions/{version.pk}", headers=HTMX).content.decode()
    assert "box-published" in line
    assert "Check info" in line
    assert f'hx-get="/publishes/{publish.pk}"' in line
    assert "every 1s" not in line
    assert "box-open" not in line


def test_failed_line_says_why_and_only_collaborators_may_retry(
    browser: Callable[..., Client],
    version: PipelineVersion,
    member: User,
    viewer: User,
    make_publish: Callable[..., Publish],
) -> None:
    failed = make_publish(version, status="Error", error="GHCR refused the write: the token lacks write:packages.")
    address = f"/pipeline-versions/{version.pk}"
    line = browser(member).get(address, headers=HTMX).content.decode()
    assert "GHCR refused the write" in line
    assert "Retry" in line
    assert "Retry" not in browser(viewer).get(address, headers=HTMX).content.decode()
    browser(member).post(f"/publishes/{failed.pk}/retry", headers=HTMX)
    failed.refresh_from_db()
    assert failed.status == Publish.Status.PENDING


def test_retry_of_what_did_not_fail_is_refused_beside_the_page(
    browser: Callable[..., Client], version: PipelineVersion, member: User, published: Callable[..., Publish]
) -> None:
    answer = browser(member).post(f"/publishes/{published(version).pk}/retry", headers=HTMX)
    assert answer.status_code == 409
    assert answer["HX-Retarget"] == "#toasts"


def test_missing_registry_is_told_and_the_history_stays(
    browser: Callable[..., Client], version: PipelineVersion, member: User, registry: RegistrySettings
) -> None:
    registry.delete()
    answer = browser(member).post(f"/pipeline-versions/{version.pk}/publish", headers=HTMX)
    assert answer["HX-Retarget"] == "#toasts"
    assert "No registry is configured" in answer.content.decode()


def test_viewer_sees_states_but_no_buttons(
    browser: Callable[..., Client], version: PipelineVersion, viewer: User
) -> None:
    page = browser(viewer).get(f"/pipelines/{version.pipeline_id}").content.decode()
    assert "Not published" in page
    assert '<button type="submit" class="box box-open">' not in page
    assert "New version" not in page


def test_details_have_everything_to_run_it(
    browser: Callable[..., Client], version: PipelineVersion, viewer: User, published: Callable[..., Publish]
) -> None:
    publish = published(version, notes=["No engine image is configured."])
    address = f"/publishes/{publish.pk}"
    page, fragment = (browser(viewer).get(address, headers=h).content.decode() for h in ({}, HTMX))
    for text in (publish.pipeline_url, publish.pipeline_digest, publish.chart_url, "docker run", "podman run", "helm"):
        assert text in page
        assert text in fragment
    assert "No engine image is configured." in page
    assert "add an edge" not in page, "a viewer may not"
    assert "<html" in page
    assert "<html" not in fragment


def test_replacing_lists_what_will_change(
    browser: Callable[..., Client],
    version: PipelineVersion,
    make_pipeline_version: Callable[..., PipelineVersion],
    make_model_version: Callable[..., Any],
    member: User,
    published: Callable[..., Publish],
) -> None:
    tensor = {"name": "price", "type": "float64", "shape": [None, 1]}
    other = make_pipeline_version(make_model_version("other", outputs=[tensor]), name="other")
    old = published(version)
    page = browser(member).get(f"/pipeline-versions/{other.pk}/replace", headers=HTMX).content.decode()
    assert f'value="{old.pk}"' in page
    assert "The output variable (float32[any, 1]) goes away." in page
    assert "The output price (float64[any, 1]) is new." in page
    assert "The input" not in page
    assert 'name="allow_breaking"' in page
    assert "Its edges move from houseprice to other" in page
    assert "Inference logs: rows from before stay as they are" in page
    assert "The pipeline changes from houseprice to other." in page and "Pause the assays of the old names" in page
    assert "Inference requests: they must be changed to match: The output variable" in page
    assert f'hx-get="/publishes/{old.pk}/edges"' in page


def test_replacing_publishes_with_the_chosen_ones(
    browser: Callable[..., Client],
    version: PipelineVersion,
    make_pipeline_version: Callable[..., PipelineVersion],
    member: User,
    published: Callable[..., Publish],
) -> None:
    old, newer = published(version), make_pipeline_version()
    client, address = browser(member), f"/pipeline-versions/{newer.pk}/replace"
    refused = client.post(address, headers=HTMX)
    assert refused.status_code == 422
    assert "Choose at least one publish" in refused.content.decode()
    answer = client.post(address, {"replaces": [old.pk]}, headers=HTMX)
    assert answer["HX-Trigger"] == "close-dialog"
    made = newer.publishes.get()
    assert list(made.replaces.all()) == [old]


def test_what_was_replaced_meanwhile_is_not_replaced_again(
    browser: Callable[..., Client],
    version: PipelineVersion,
    make_pipeline_version: Callable[..., PipelineVersion],
    member: User,
    published: Callable[..., Publish],
) -> None:
    old, newer = published(version), make_pipeline_version()
    published(make_pipeline_version()).replaces.add(old)
    answer = browser(member).post(f"/pipeline-versions/{newer.pk}/replace", {"replaces": [old.pk]})
    assert answer.status_code == 422
    assert "can no longer be replaced" in answer.content.decode()
    line = browser(member).get(f"/pipeline-versions/{version.pk}", headers=HTMX).content.decode()
    assert "Replaced by publish" in line


def test_long_histories_come_in_pages(
    browser: Callable[..., Client],
    version: PipelineVersion,
    make_pipeline_version: Callable[..., PipelineVersion],
    member: User,
) -> None:
    for _ in range(20):
        make_pipeline_version()
    client, address = browser(member), f"/pipelines/{version.pipeline_id}"
    first = client.get(address).content.decode()
    assert first.count('<li class="version"') == 20
    assert str(version.uuid) not in first
    older = client.get(f"{address}?before={version.pk + 1}").content.decode()
    assert str(version.uuid) in older
    assert client.get(f"{address}?before=x").status_code == 200


def test_history_needs_as_many_queries_for_many_versions_as_for_one(
    browser: Callable[..., Client],
    version: PipelineVersion,
    make_pipeline_version: Callable[..., PipelineVersion],
    member: User,
    published: Callable[..., Publish],
) -> None:
    client, address = browser(member), f"/pipelines/{version.pipeline_id}"
    published(version)
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    for _ in range(19):
        published(make_pipeline_version())
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)


def test_one_that_runs_is_cancelled_in_its_line(
    browser: Callable[..., Client], member: User, version: PipelineVersion, make_publish: Callable[..., Publish]
):
    waiting = make_publish(version)
    page = browser(member).post(f"/publishes/{waiting.pk}/cancel", headers=HTMX).content.decode()
    assert "Cancelled by" in page and "Retry" in page
    waiting.refresh_from_db()
    assert waiting.status == Publish.Status.ERROR
