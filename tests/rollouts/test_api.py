"""REST of rollouts: what it answers, to whom, and what it refuses."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from catalog.models import Membership, ModelVersion, PipelineVersion, Role, User, Workspace
from publishing.models import Publish
from rollouts import jobs
from rollouts.models import Rollout, State
from tests.rollouts.conftest import Fleet

Api = Callable[..., APIClient]
MakeFleet = Callable[..., Fleet]
Make = Callable[..., Publish]
URL = "/api/v1/rollouts"
READS = ["", "/members", "/events"]
WRITES = ["/pause", "/resume", "/abort"]


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    return make_fleet(4, now=timezone.now())


@pytest.fixture
def made(api: Api, member: User, fleet: Fleet, old: Publish, new: Publish) -> dict[str, Any]:
    answer = api(member).post(URL, {"publish": new.pk, "replaces": [old.pk]})
    assert answer.status_code == 201, answer.content
    said: dict[str, Any] = answer.json()
    return said


def test_member_makes_a_rollout_that_a_worker_begins_at_once(
    api: Api,
    member: User,
    fleet: Fleet,
    old: Publish,
    new: Publish,
    no_broker: list[int],
    django_capture_on_commit_callbacks: Any,
) -> None:
    asked = {
        "publish": new.pk,
        "replaces": [old.pk],
        "groups": [{"edges": [fleet.edges[0].name]}, {"percent": 50}],
        "max_in_flight": "50%",
        "window": {"days": ["mon", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"},
    }
    with django_capture_on_commit_callbacks(execute=True):
        answer = api(member).post(URL, asked)
    assert answer.status_code == 201, answer.content
    said = answer.json()
    assert (said["state"], said["max_in_flight"], said["replaces"]) == ("pending", 2, [old.pk])
    assert said["window"] == asked["window"]
    groups = said["progress"]["groups"]
    assert [(group["edges"], group["counts"]["waiting"]) for group in groups] == [(1, 1), (2, 2), (1, 1)]
    assert groups[0]["selector"] == {"edges": [fleet.edges[0].name]}
    assert no_broker == [said["id"]]
    assert api(member).get(f"{URL}/{said['id']}").json() == said


def test_viewer_reads_what_happens(api: Api, viewer: User, made: dict[str, Any], fleet: Fleet, old: Publish) -> None:
    jobs.advance(made["id"], timezone.now())
    client = api(viewer)
    assert [row["id"] for row in client.get(URL).json()["results"]] == [made["id"]]
    said = client.get(f"{URL}/{made['id']}").json()
    assert (said["state"], said["progress"]["counts"]["in_flight"]) == ("running", 4)
    members = client.get(f"{URL}/{made['id']}/members?bucket=in_flight&limit=3").json()
    assert (members["count"], len(members["results"])) == (4, 3)
    assert members["results"][0]["previous"] == old.pk
    assert client.get(f"{URL}/{made['id']}/members?bucket=done").json()["count"] == 0
    assert client.get(f"{URL}/{made['id']}/members?bucket=nowhere").status_code == 400
    events = client.get(f"{URL}/{made['id']}/events").json()["results"]
    assert [event["kind"] for event in events] == ["group_opened", "started", "created"]
    assert events[-1]["detail"]["edges"] == 4


def test_viewer_may_change_nothing(api: Api, viewer: User, made: dict[str, Any], old: Publish, new: Publish) -> None:
    for verb in WRITES:
        assert api(viewer).post(f"{URL}/{made['id']}{verb}").status_code == 403, verb
    for path in (URL, f"{URL}/preview"):
        assert api(viewer).post(path, {"publish": new.pk, "replaces": [old.pk]}).status_code == 403


def test_stranger_gets_404_and_an_empty_list(
    api: Api, stranger: User, made: dict[str, Any], old: Publish, new: Publish
) -> None:
    client = api(stranger)
    assert client.get(URL).json()["results"] == []
    for path in READS:
        assert client.get(f"{URL}/{made['id']}{path}").status_code == 404, path
    for path in WRITES:
        assert client.post(f"{URL}/{made['id']}{path}").status_code == 404, path
    assert client.post(URL, {"publish": new.pk, "replaces": [old.pk]}).status_code == 404
    assert api().get(URL).status_code == 401


def test_member_of_the_target_alone_is_a_stranger_to_the_rollout(
    api: Api, made: dict[str, Any], owner: User, stranger: User, make_publish: Make
) -> None:
    rollout = Rollout.objects.get(pk=made["id"])
    apart = Workspace.objects.create(name="apart", created_by=owner)
    other = make_publish(pipeline="other")
    pipeline = other.pipeline_version.pipeline
    pipeline.workspace = apart
    pipeline.save()
    Membership.objects.create(
        workspace=rollout.publish.pipeline_version.pipeline.workspace, user=stranger, role=Role.OWNER
    )
    assert api(stranger).get(f"{URL}/{made['id']}").status_code == 200
    rollout.replaced.add(other)
    assert api(stranger).get(f"{URL}/{made['id']}").status_code == 404
    assert api(stranger).get(URL).json()["results"] == []


def test_pause_resume_and_abort(api: Api, member: User, made: dict[str, Any]) -> None:
    client, base = api(member), f"{URL}/{made['id']}"
    said = client.post(f"{base}/pause", {"reason": "holidays"}).json()
    assert (said["state"], said["reason"]) == ("paused", "holidays")
    refused = client.post(f"{base}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "rollout_state")
    assert client.post(f"{base}/resume").json()["state"] == "running"
    assert client.post(f"{base}/abort", {"reason": "no"}).json()["state"] == "aborting"
    assert client.post(f"{base}/abort", {"rollback": True}).json()["state"] == "rolling back"
    assert client.post(f"{base}/resume").status_code == 409
    jobs.advance(made["id"], timezone.now())
    said = client.get(base).json()
    assert (said["state"], said["progress"]["counts"]["waiting"]) == (State.ROLLED_BACK, 4)
    actors = {event["kind"]: event["actor"] for event in client.get(f"{base}/events").json()["results"]}
    assert actors["paused"] == str(member.public_id)
    assert actors["ended"] is None


def test_second_rollout_of_the_same_edges_is_refused_and_names_the_first(
    api: Api, member: User, made: dict[str, Any], old: Publish, new: Publish, make_publish: Make
) -> None:
    third = make_publish()
    for target, replaced in ((third, old), (third, new), (old, new)):
        for path in (URL, f"{URL}/preview"):
            answer = api(member).post(path, {"publish": target.pk, "replaces": [replaced.pk]})
            assert answer.status_code == 409
            assert answer.json()["code"] == "edges_in_rollout"
            assert answer.json()["rollout_id"] == made["id"]
    api(member).post(f"{URL}/{made['id']}/abort")
    jobs.advance(made["id"], timezone.now())
    assert api(member).post(URL, {"publish": third.pk, "replaces": [old.pk]}).status_code == 201


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"replaces": []}, "replaces"),
        ({"max_in_flight": "0"}, "max_in_flight"),
        ({"max_in_flight": "120%"}, "max_in_flight"),
        ({"max_in_flight": "many"}, "max_in_flight"),
        ({"groups": [{}]}, "A group is one of"),
        ({"groups": [{"percent": 10, "tags": ["a"]}]}, "A group is one of"),
        ({"groups": [{"edges": ["unknown"]}]}, "unknown"),
        ({"groups": [{"percent": 1}] * 21}, "at most 20 groups"),
        ({"window": {"from": "22:00", "to": "22:00"}}, "window"),
        ({"window": {"from": "25:00", "to": "22:00"}}, "window"),
        ({"window": {"from": "20:00", "to": "22:00", "zone": "Europe/Atlantis"}}, "time zone"),
        ({"window": {"from": "20:00", "to": "22:00", "zone": "../../etc/passwd"}}, "time zone"),
        ({"hours": 5000}, "hours"),
        ({"answer_seconds": 10**9}, "answer_seconds"),
    ],
)
def test_unusable_strategy_is_refused_with_the_reason(
    api: Api, member: User, fleet: Fleet, old: Publish, new: Publish, changes: dict[str, Any], word: str
) -> None:
    answer = api(member).post(URL, {"publish": new.pk, "replaces": [old.pk], **changes})
    assert answer.status_code == 400
    assert word in answer.json()["message"]
    assert not Rollout.objects.exists()


def test_publishes_that_cannot_be_rolled_out_are_refused(
    api: Api, member: User, fleet: Fleet, old: Publish, new: Publish, make_publish: Make
) -> None:
    def code(target: int, *replaced: int) -> tuple[int, str]:
        answer = api(member).post(URL, {"publish": target, "replaces": list(replaced)})
        return answer.status_code, answer.json()["code"]

    assert code(new.pk, new.pk) == (400, "invalid")
    assert code(make_publish(status="Publishing").pk, old.pk) == (409, "not_published")
    assert code(old.pk, new.pk) == (409, "no_edges")
    assert code(new.pk, 999_999) == (404, "not_found")
    make_publish(new)
    assert code(new.pk, old.pk) == (409, "publish_replaced")


def test_preview_says_which_bytes_each_edge_lacks(
    api: Api,
    member: User,
    old: Publish,
    make_fleet: MakeFleet,
    make_publish: Make,
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
) -> None:
    shared = make_model_version("shared", b"s" * 5_000_000)
    added = make_model_version("added", b"a" * 1_000_000)
    before, target = make_publish(pipeline="two"), make_publish(pipeline="two")
    for publish, models in ((before, [shared]), (target, [shared, added])):
        publish.pipeline_version = make_pipeline_version(*models, name="two")
        publish.save()
    serving = make_fleet(2, publish=before, now=timezone.now())
    blank = serving.edges[0]
    blank.serving_digest = ""
    blank.last_contact = timezone.now() - timedelta(hours=1)
    blank.save()

    answer = api(member).post(
        f"{URL}/preview", {"publish": target.pk, "replaces": [before.pk], "link_mbps": 8, "healthy_seconds": 0}
    )
    assert answer.status_code == 200, answer.content
    said = answer.json()
    budget = {line["name"]: line for line in said["budget"]}
    whole, part = budget[blank.name], budget[serving.edges[1].name]
    assert 6_000_000 < whole["bytes_to_fetch"] < 6_010_000
    assert 1_000_000 < part["bytes_to_fetch"] < 1_010_000
    assert (whole["is_online"], part["is_online"]) == (False, True)
    assert (whole["seconds"], part["seconds"]) == (6, 1)
    assert said["bytes_to_fetch"] == whole["bytes_to_fetch"] + part["bytes_to_fetch"]
    assert said["groups"][0]["online"] == 1
    assert not Rollout.objects.exists()

    made = api(member).post(URL, {"publish": target.pk, "replaces": [before.pk]}).json()
    members = api(member).get(f"{URL}/{made['id']}/members").json()["results"]
    assert {row["name"]: row["bytes_to_fetch"] for row in members} == {
        name: line["bytes_to_fetch"] for name, line in budget.items()
    }


def test_queries_do_not_grow_with_the_edges(
    api: Api, member: User, old: Publish, new: Publish, make_fleet: MakeFleet, django_assert_max_num_queries: Any
) -> None:
    counted = []
    for count in (5, 50):
        make_fleet(count, now=timezone.now())
        asked = {"publish": new.pk, "replaces": [old.pk], "groups": [{"percent": 30}, {"percent": 50}]}
        with django_assert_max_num_queries(60) as made:
            pk = api(member).post(URL, asked).json()["id"]
        with django_assert_max_num_queries(60) as moved:
            jobs.advance(pk, timezone.now())
        with django_assert_max_num_queries(60) as idle:
            jobs.advance(pk, timezone.now())
        with django_assert_max_num_queries(60) as read:
            api(member).get(f"{URL}/{pk}")
            api(member).get(f"{URL}/{pk}/members")
        counted.append([len(made), len(moved), len(idle), len(read)])
        api(member).post(f"{URL}/{pk}/abort", {"rollback": True})
        jobs.advance(pk, timezone.now())
        Rollout.objects.get(pk=pk).members.update(active=False)
        Rollout.objects.filter(pk=pk).update(state=State.ROLLED_BACK)
    assert counted[0] == counted[1], counted
