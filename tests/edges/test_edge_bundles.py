"""`POST …/publishes/preview` and `POST …/publishes/<id>/edge-bundles`: before and after a replacement."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import ModelVersion, PipelineVersion, User
from edges import jobs, operations
from edges.models import Edge
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, join_token_in

Api = Callable[..., APIClient]


@pytest.fixture
def moved(clock: Clock, device: Device, owner: User, publish: Publish, make_publish: Callable[..., Publish]) -> Publish:
    """A publish that took over an edge that joined, one that never did, and a banned one."""
    for name in ("never", "banned"):
        added = operations.add_edge(actor=owner, publish=publish, name=name)
    operations.ban_edge(actor=owner, edge=added.edge)
    new = make_publish(publish, pipeline="condoprice")
    jobs.follow_publish(new.pk, clock.now)
    return new


def bundles(api: Api, user: User, publish: Publish, **body: object) -> list[dict[str, object]]:
    answer = api(user).post(reverse("api-publish-edge-bundles", args=[publish.pk]), body)
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    found: list[dict[str, object]] = answer.json()
    return found


def test_edge_that_needs_a_bundle_gets_a_fresh_one_and_all_get_commands(
    clock: Clock, api: Api, member: User, moved: Publish, device: Device
) -> None:
    found = {edge["name"]: edge for edge in bundles(api, member, moved, reason="after the swap")}

    assert set(found) == {"houseprice-edge-01", "never"}, "a banned edge gets none"
    assert found["houseprice-edge-01"]["edge_bundle"] is None
    helm = next(c["text"] for c in found["never"]["commands"] if c["title"] == "helm upgrade")  # type: ignore[attr-defined]
    assert helm.startswith("helm upgrade condoprice") and str(found["never"]["edge_bundle"]) in helm
    run = next(c["text"] for c in found["houseprice-edge-01"]["commands"] if c["title"] == "docker run")  # type: ignore[attr-defined]
    assert "-v opscenter-houseprice-edge-01:/persist" in run, "without a bundle too: the session is in there"
    assert moved.pipeline_url in run and "EDGE_BUNDLE" not in run
    assert device.checkin().status_code == 200, "the live session goes on"
    joined = Device(clock).join(join_token_in(str(found["never"]["edge_bundle"])))
    assert joined.json()["desired"]["publish_id"] == moved.pk
    event = Edge.objects.get(name="never").events.get(kind="token_reissued")
    assert (event.actor, event.detail["reason"]) == (member, "after the swap")


def test_lapsed_edge_gets_a_bundle_too(clock: Clock, api: Api, member: User, moved: Publish, edge: Edge) -> None:
    clock.forward(days=8)
    (found,) = bundles(api, member, moved, edges=[str(edge.pk)])
    assert Device(clock).join(join_token_in(str(found["edge_bundle"]))).json()["edge"]["id"] == str(edge.pk)


def test_edge_of_another_publish_is_404(api: Api, member: User, moved: Publish) -> None:
    url = reverse("api-publish-edge-bundles", args=[moved.pk])
    assert api(member).post(url, {"edges": [str(uuid4())]}).status_code == 404


def test_only_collaborators_get_bundles(api: Api, viewer: User, stranger: User, moved: Publish) -> None:
    url = reverse("api-publish-edge-bundles", args=[moved.pk])
    assert (api(viewer).post(url).status_code, api(stranger).post(url).status_code) == (403, 404)


def test_preview_tells_edges_schema_and_considerations(
    api: Api,
    member: User,
    edge: Edge,
    publish: Publish,
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    inputs = [{"name": "tensor", "type": "float32", "shape": [None, 20]}]
    version = make_pipeline_version(make_model_version("condo", b"other", inputs=inputs), name="condoprice")
    url = reverse("api-publish-preview", args=[version.pipeline_id])
    answer = api(member).post(url, {"replaces": [publish.pk]})

    (found,) = answer.json()
    assert (found["publish"]["id"], found["edges"], found["change"]) == (publish.pk, 1, "breaking")
    assert found["differences"][0]["change"] == "breaking"
    assert found["renamed"][0] == "The pipeline changes from houseprice to condoprice."
    assert [text.partition(":")[0] for text in found["considerations"]] == [
        "Inference logs",
        "Model drift detection",
        "Inference requests",
    ]
    assert Publish.objects.count() == 1


def test_preview_refuses_what_a_publish_would(
    api: Api, member: User, viewer: User, stranger: User, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    url = reverse("api-publish-preview", args=[publish.pipeline_version.pipeline_id])
    waiting = make_publish(status=Publish.Status.PENDING)

    assert api(member).post(url, {"replaces": [waiting.pk]}).status_code == 409
    assert api(member).post(url, {"replaces": [999]}).status_code == 404
    assert api(member).post(url, {"replaces": []}).status_code == 400
    assert api(viewer).post(url, {"replaces": [publish.pk]}).status_code == 403
    assert api(stranger).post(url, {"replaces": [publish.pk]}).status_code == 404
