import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from catalog.models import User, Workspace
from edges import operations
from edges.models import Edge
from publishing.models import Publish
from tests.edges.conftest import Clock, Device, join_token_in, read

Api = Callable[..., APIClient]

READS = [("get", "api-edge"), ("get", "api-edge-events"), ("get", "api-edge-explain")]
WRITES = [
    ("delete", "api-edge"),
    ("post", "api-edge-reissue"),
    ("post", "api-edge-ban"),
    ("post", "api-edge-unban"),
]


def call(client: APIClient, verb: str, name: str, edge: Edge) -> Any:
    return getattr(client, verb)(reverse(name, args=[edge.pk]))


def add(client: APIClient, publish: Publish, **fields: Any) -> Any:
    return client.post(f"/api/v1/publishes/{publish.pk}/edges", {"name": "houseprice-edge-01", **fields})


def test_member_adds_an_edge_and_is_shown_its_bundle_once(
    api: Api, member: User, publish: Publish, clock: Clock, settings: Any
) -> None:
    answer = add(api(member), publish, tags=["berlin"], cpus=2, memory="3Gi")

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    said = answer.json()
    bundle = read(said["edge_bundle"])
    assert bundle.pop("JOIN_TOKEN")
    assert bundle == {
        "BUNDLE_VERSION": "1",
        "EDGE_NAME": "houseprice-edge-01",
        "OPSCENTER_HOST": settings.EDGE_HOST,
        "PIPELINE_URL": publish.pipeline_url,
        "WORKSPACE_ID": str(publish.pipeline_version.pipeline.workspace_id),
    }
    assert said["docker_run_variables"] == {"PIPELINE_URL": publish.pipeline_url, "EDGE_BUNDLE": said["edge_bundle"]}
    run = [command for command in said["commands"] if not command["title"].startswith("GitOps")]
    assert len(run) >= 6 and all(said["edge_bundle"] in command["text"] for command in run)
    assert (said["tags"], said["cpus"], said["memory"]) == (["berlin"], 2, "3Gi")
    assert said["should_run_publish"] == publish.pk
    assert said["spiffe_id"] == f"spiffe://opscenter/ns/deployments/edge/{said['id']}"
    assert said["status"]["state"] == "never joined"
    assert Device(clock).join(join_token_in(said["edge_bundle"])).status_code == 201


def test_secrets_are_in_no_later_answer_and_in_no_log(
    api: Api, member: User, publish: Publish, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    said = add(api(member), publish).json()
    token = join_token_in(said["edge_bundle"])
    device = Device(clock)
    device.join(token)
    Device(clock).join(token)

    base = f"/api/v1/edges/{said['id']}"
    answers = [api(member).get(url).content.decode() for url in (base, f"{base}/events", f"{base}/explain")]
    text = "".join(answers) + api(member).get("/api/v1/edges").content.decode() + caplog.text
    for secret in (token, said["edge_bundle"], device.joined["session"]["access_token"]):
        assert secret not in text


def test_stranger_gets_404(api: Api, stranger: User, edge: Edge) -> None:
    for verb, name in READS + WRITES:
        answer = call(api(stranger), verb, name, edge)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name
    assert add(api(stranger), edge.publish).status_code == 404
    assert api(stranger).get(f"/api/v1/publishes/{edge.publish_id}/edges").status_code == 404
    assert api(stranger).get("/api/v1/edges").json()["results"] == []


def test_nobody_gets_401(api: Api, edge: Edge) -> None:
    for verb, name in READS + WRITES:
        assert call(api(), verb, name, edge).status_code == 401, name
    assert add(api(), edge.publish).status_code == 401
    assert api().get("/api/v1/edges").status_code == 401


def test_viewer_may_look_and_nothing_else(api: Api, viewer: User, edge: Edge) -> None:
    for verb, name in READS:
        assert call(api(viewer), verb, name, edge).status_code == 200, name
    for verb, name in WRITES:
        answer = call(api(viewer), verb, name, edge)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), name
    assert add(api(viewer), edge.publish).status_code == 403
    assert api(viewer).get(f"/api/v1/publishes/{edge.publish_id}/edges").json()["count"] == 1
    assert api(viewer).get("/api/v1/edges").json()["count"] == 1


def test_member_may_do_everything(api: Api, member: User, edge: Edge) -> None:
    for verb, name in [*READS, *WRITES[1:], WRITES[0]]:
        assert call(api(member), verb, name, edge).status_code in {200, 201, 204}, name


def test_access_token_of_an_edge_opens_nothing_for_people(device: Device, edge: Edge) -> None:
    for verb, name in READS + WRITES:
        assert call(device.client, verb, name, edge).status_code == 401, name


def test_name_is_unique_over_all_workspaces(
    api: Api, member: User, stranger: User, edge: Edge, make_publish: Callable[..., Publish]
) -> None:
    answer = add(api(member), make_publish(pipeline="other"), name=edge.name)

    assert (answer.status_code, answer.json()["code"]) == (409, "edge_name_taken")
    assert Edge.objects.count() == 1


def test_removed_name_is_free_again_and_makes_another_edge(api: Api, member: User, edge: Edge) -> None:
    assert call(api(member), "delete", "api-edge", edge).status_code == 204
    answer = add(api(member), edge.publish, name=edge.name)

    assert answer.status_code == 201
    assert answer.json()["id"] != str(edge.pk)
    assert [found["id"] for found in api(member).get("/api/v1/edges").json()["results"]] == [answer.json()["id"]]


def test_removed_edge_keeps_its_history_and_takes_no_orders(api: Api, member: User, edge: Edge) -> None:
    call(api(member), "delete", "api-edge", edge)

    for verb, name in READS:
        assert call(api(member), verb, name, edge).status_code == 200
    for verb, name in WRITES:
        assert call(api(member), verb, name, edge).status_code == 404
    said = call(api(member), "get", "api-edge", edge).json()
    assert said["status"]["state"] == "removed"
    events = call(api(member), "get", "api-edge-events", edge).json()["results"]
    assert [event["kind"] for event in events] == ["removed", "added"]
    assert events[0]["actor"] == str(member.public_id)


@pytest.mark.parametrize("status", ["PendingPublish", "Publishing", "Error"])
def test_edge_cannot_be_added_to_what_is_not_published(
    api: Api, member: User, make_publish: Callable[..., Publish], status: str
) -> None:
    answer = add(api(member), make_publish(status=status))

    assert (answer.status_code, answer.json()["code"]) == (409, "not_published")


def test_replaced_publish_names_its_successor(
    api: Api, member: User, publish: Publish, make_publish: Callable[..., Publish]
) -> None:
    newer = make_publish(publish)
    answer = add(api(member), publish)

    assert (answer.status_code, answer.json()["code"]) == (409, "publish_replaced")
    assert answer.json()["publish_id"] == newer.pk


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a;rm -rf ~"},
        {"name": "a\nexport JOIN_TOKEN=x"},
        {"name": "$(id)"},
        {"name": "-a"},
        {"name": "a" * 129},
        {"name": "é"},
        {"tags": ["a\nb"]},
        {"tags": ["x"] * 33},
        {"tags": "berlin"},
        {"cpus": 0},
        {"cpus": "NaN"},
        {"cpus": 1e9},
        {"memory": "lots"},
        {"memory": "0Gi"},
    ],
)
def test_field_that_is_wrong_is_refused(api: Api, member: User, publish: Publish, fields: dict[str, Any]) -> None:
    answer = add(api(member), publish, **fields)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not Edge.objects.exists()


def test_reissue_answers_a_new_bundle_for_the_same_edge(api: Api, member: User, added: operations.Added) -> None:
    answer = call(api(member), "post", "api-edge-reissue", added.edge)

    assert answer.status_code == 201
    assert answer.json()["id"] == str(added.edge.pk)
    assert join_token_in(answer.json()["edge_bundle"]) != join_token_in(added.bundle)


def test_banned_edge_gets_no_new_bundle(api: Api, member: User, edge: Edge) -> None:
    banned = api(member).post(f"/api/v1/edges/{edge.pk}/ban", {"reason": "stolen"})
    assert banned.json()["status"]["state"] == "banned"
    answer = call(api(member), "post", "api-edge-reissue", edge)

    assert answer.status_code == 409
    assert edge.events.get(kind="banned").detail == {"reason": "stolen"}
    assert edge.join_tokens.get().revoked_at is None
    assert call(api(member), "post", "api-edge-unban", edge).json()["status"]["state"] == "never joined"


@pytest.mark.parametrize("name", ["workspace", "pipeline", "publish"])
def test_list_can_be_narrowed(
    api: Api, owner: User, member: User, edge: Edge, make_publish: Callable[..., Publish], name: str
) -> None:
    operations.add_edge(actor=owner, publish=make_publish(pipeline="other"), name="z")
    version = edge.publish.pipeline_version
    ids = {
        "workspace": version.pipeline.workspace_id,
        "pipeline": version.pipeline_id,
        "publish": edge.publish_id,
    }
    found = api(member).get("/api/v1/edges", {name: ids[name]}).json()
    assert [each["name"] for each in found["results"]] == [edge.name] + (["z"] if name == "workspace" else [])
    assert api(member).get("/api/v1/edges", {name: 10**6}).json()["count"] == 0
    assert api(member).get("/api/v1/edges", {name: "x"}).status_code == 400


def test_list_finds_by_name_and_state(api: Api, member: User, owner: User, device: Device, edge: Edge) -> None:
    operations.add_edge(actor=owner, publish=edge.publish, name="z")

    def names(**filters: str) -> list[str]:
        return [found["name"] for found in api(member).get("/api/v1/edges", filters).json()["results"]]

    assert names(name="z") == ["z"]
    assert names(state="online") == [edge.name]
    assert names(state="never joined") == ["z"]
    assert api(member).get("/api/v1/edges", {"state": "asleep"}).status_code == 400


@pytest.mark.parametrize("many", [1, 20])
def test_list_costs_the_same_for_one_edge_and_twenty(
    api: Api, member: User, owner: User, publish: Publish, many: int, django_assert_num_queries: Any
) -> None:
    for number in range(many):
        operations.add_edge(actor=owner, publish=publish, name=f"edge-{number}")

    with django_assert_num_queries(5):
        assert api(member).get("/api/v1/edges").json()["count"] == many


def test_events_come_newest_first(api: Api, member: User, device: Device, edge: Edge) -> None:
    device.checkin()
    events = call(api(member), "get", "api-edge-events", edge).json()["results"]

    assert [event["kind"] for event in events] == ["serving", "joined", "added"]
    assert all(later["at"] >= earlier["at"] for later, earlier in itertools.pairwise(events))


def test_explain_says_what_differs_and_what_to_do(
    api: Api, member: User, clock: Clock, device: Device, added: operations.Added, publish: Publish
) -> None:
    Device(clock).join(join_token_in(added.bundle))
    device.checkin(clock=int(clock.now.timestamp() * 1000) - 10_800_000, disk={"free": 2, "total": 100})
    said = call(api(member), "get", "api-edge-explain", added.edge).json()

    assert said["status"]["should_run"]["digest"] == publish.pipeline_digest
    assert said["status"]["serving_digest"] != publish.pipeline_digest
    assert said["status"]["is_serving"] is False
    assert said["last_refusal"]["detail"]["code"] == "join_token_used"
    assert (said["clock_offset"], said["disk_free"]) == (-10_800_000, 0.02)
    assert said["join_token"]["used_at"]
    assert said["next_step"]

    device.checkin(serving=device.serving(publish))
    said = call(api(member), "get", "api-edge-explain", added.edge).json()
    assert said["status"]["is_serving"] is True
    assert said["next_step"] == "Nothing to do."


def test_unknown_edge_is_404(api: Api, member: User, workspace: Workspace) -> None:
    assert api(member).get("/api/v1/edges/9f9d9afa-b6bc-4a75-b811-2a56da74f02b").status_code == 404
    assert api(member).get("/api/v1/publishes/999999/edges").status_code == 404
    assert api(member).get("/api/v1/edges/x").status_code == 404
