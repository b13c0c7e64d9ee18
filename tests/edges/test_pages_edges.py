"""Pages of edges."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import Pipeline, User
from edges import operations
from edges.models import Edge, JoinToken
from publishing import engine_config
from publishing.models import Publish
from tests.conftest import check_newest_events
from tests.edges.conftest import join_token_in

HTMX = {"HX-Request": "true"}


@pytest.fixture
def publish(make_publish: Callable[..., Publish]) -> Publish:
    return make_publish(engine_config=engine_config.checked(None))


@pytest.fixture
def pipeline(publish: Publish) -> Pipeline:
    return publish.pipeline_version.pipeline


@pytest.fixture
def make_edge(publish: Publish, owner: User) -> Callable[..., Edge]:
    def make(name: str = "oven-1", **fields: Any) -> Edge:
        tags = fields.pop("tags", ())
        edge = operations.add_edge(actor=owner, publish=publish, name=name, tags=tags).edge
        Edge.objects.filter(pk=edge.pk).update(**fields)
        edge.refresh_from_db()
        return edge

    return make


def joined(**changes: Any) -> dict[str, Any]:
    now = timezone.now()
    return {"joined_at": now, "last_contact": now, "session_lapses_at": now + timedelta(days=7)} | changes


def test_everybody_in_the_workspace_sees_edges(
    statuses: Callable[..., dict[str, int]], pipeline: Pipeline, make_edge: Callable[..., Edge], publish: Publish
) -> None:
    seen = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
    assert statuses(f"/pipelines/{pipeline.pk}/edges") == seen
    assert statuses(f"/edges/{make_edge().pk}") == seen
    moved = {"owner": 302, "member": 302, "viewer": 302, "stranger": 404}
    assert statuses(f"/publishes/{publish.pk}/edges") == moved


@pytest.mark.parametrize("verb", ["reissue", "ban", "remove"])
def test_only_collaborators_change_edges(
    statuses: Callable[..., dict[str, int]], make_edge: Callable[..., Edge], verb: str
) -> None:
    edge = make_edge()
    refused = {"viewer": 403, "stranger": 404}
    assert statuses(f"/edges/{edge.pk}/{verb}") == refused | {"owner": 200, "member": 200}
    assert statuses(f"/edges/{edge.pk}/{verb}", "post", without=("owner", "member")) == refused
    assert statuses(f"/edges/{edge.pk}/unban", "post", without=("owner", "member")) == refused
    assert JoinToken.objects.filter(revoked_at=None).count() == 1


def test_only_collaborators_add_edges(statuses: Callable[..., dict[str, int]], pipeline: Pipeline) -> None:
    address = f"/pipelines/{pipeline.pk}/edges/add"
    assert statuses(address) == {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
    answers = statuses(address, "post", without=("owner", "member"), name="x")
    assert answers == {"viewer": 403, "stranger": 404}
    assert not Edge.objects.exists()


def test_bundle_is_shown_once_with_its_commands_and_kept_nowhere(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    client, address = browser(member), f"/pipelines/{pipeline.pk}/edges/add"
    sent = {"name": "oven-1", "publish": publish.pk, "tags": "site-a, oven, oven", "cpus": "2", "memory": "1Gi"}
    answer = client.post(address, sent, headers=HTMX)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert "shown only once" in page
    bundle = page.partition('id="bundle" tabindex="0">')[2].partition("<")[0]
    token = join_token_in(bundle)
    assert page.count(bundle) > 3, "in the commands too"
    edge = Edge.objects.get()
    assert edge.tags == ["site-a", "oven"]
    assert edge.cpus == 2
    for later in (f"/pipelines/{pipeline.pk}/edges", f"/edges/{edge.pk}", address):
        content = client.get(later).content.decode()
        assert bundle not in content
        assert token not in content
    assert bundle not in str(client.session.items())


def test_bundle_without_scripts_is_a_page(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    sent = {"name": "oven-1", "publish": publish.pk, "cpus": "1", "memory": "1Gi"}
    page = browser(member).post(f"/pipelines/{pipeline.pk}/edges/add", sent).content.decode()
    assert "<html" in page
    assert "EDGE_BUNDLE" in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "taken"}, "There is an edge &#x27;taken&#x27; already"),
        ({"name": "no spaces"}, "letters, digits, hyphens"),
        ({"memory": "much"}, "Kubernetes quantity"),
        ({"publish": "999"}, "Select a valid choice"),
    ],
)
def test_refused_edge_says_why(
    browser: Callable[..., Client],
    pipeline: Pipeline,
    publish: Publish,
    make_edge: Callable[..., Edge],
    member: User,
    changes: dict[str, str],
    told: str,
) -> None:
    make_edge("taken")
    sent = {"name": "oven-1", "publish": publish.pk, "cpus": "1", "memory": "1Gi"} | changes
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/edges/add", sent, headers=HTMX)
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert Edge.objects.count() == 1


def test_replaced_publish_takes_no_new_edges(
    browser: Callable[..., Client],
    pipeline: Pipeline,
    publish: Publish,
    make_publish: Callable[..., Publish],
    member: User,
) -> None:
    newer = make_publish(publish)
    page = browser(member).get(f"/pipelines/{pipeline.pk}/edges/add").content.decode()
    assert f'<option value="{newer.pk}"' in page
    assert f'<option value="{publish.pk}"' not in page


def test_list_shows_what_runs_beside_what_should(
    browser: Callable[..., Client],
    pipeline: Pipeline,
    publish: Publish,
    make_edge: Callable[..., Edge],
    viewer: User,
) -> None:
    make_edge("good", **joined(serving_digest=publish.pipeline_digest))
    make_edge("behind", **joined(serving_digest="sha256:" + "0" * 64))
    make_edge("new")
    page = browser(viewer).get(f"/pipelines/{pipeline.pk}/edges").content.decode()
    assert "the same" in page
    assert "an earlier one" in page
    assert "nothing yet" in page
    assert "Online" in page
    assert "Never joined" in page
    assert "New bundle" not in page, "a viewer has no actions"


def test_filter_is_in_the_address_and_finds_names_tags_and_states(
    browser: Callable[..., Client], pipeline: Pipeline, make_edge: Callable[..., Edge], viewer: User
) -> None:
    make_edge("oven-1", tags=["Köln"])
    make_edge("gate", tags=["hall-2"], **joined())
    client, address = browser(viewer), f"/pipelines/{pipeline.pk}/edges"

    def found(**query: str) -> set[str]:
        page = client.get(address, query, headers=HTMX).content.decode()
        return {name for name in ("oven-1", "gate") if f">{name}</a>" in page}

    assert found() == {"oven-1", "gate"}
    assert found(q="OVEN") == {"oven-1"}
    assert found(q="hall") == {"gate"}
    assert found(q="Köln") == {"oven-1"}
    assert found(state="online") == {"gate"}
    assert found(state="never joined") == {"oven-1"}
    assert found(q="none") == set()
    whole = client.get(address, {"q": "oven"}).content.decode()
    assert 'value="oven"' in whole


def test_replaced_edges_are_listed_with_the_pipeline_they_moved_to(
    browser: Callable[..., Client],
    pipeline: Pipeline,
    publish: Publish,
    make_publish: Callable[..., Publish],
    make_edge: Callable[..., Edge],
    viewer: User,
) -> None:
    edge = make_edge("oven-1")
    newer = make_publish(publish, pipeline="other")
    Edge.objects.filter(pk=edge.pk).update(publish=newer)
    client = browser(viewer)
    other = newer.pipeline_version.pipeline_id
    assert ">oven-1</a>" in client.get(f"/pipelines/{other}/edges").content.decode()
    assert ">oven-1</a>" not in client.get(f"/pipelines/{pipeline.pk}/edges").content.decode()


def test_what_a_replacement_moves_is_told_in_words(
    browser: Callable[..., Client], publish: Publish, make_edge: Callable[..., Edge], member: User
) -> None:
    address = f"/publishes/{publish.pk}/edges"
    assert "nothing switches" in browser(member).get(address, headers=HTMX).content.decode()
    make_edge("oven-1")
    assert "1 edge switches: oven-1." in browser(member).get(address, headers=HTMX).content.decode()
    for number in range(2, 14):
        make_edge(f"oven-{number:02}")
    assert "13 edges switch:" in browser(member).get(address, headers=HTMX).content.decode()


def test_removal_is_asked_with_its_effect_and_then_done(
    browser: Callable[..., Client], pipeline: Pipeline, make_edge: Callable[..., Edge], member: User
) -> None:
    client, edge = browser(member), make_edge()
    question = client.get(f"/edges/{edge.pk}/remove", headers=HTMX).content.decode()
    assert "cannot come back" in question
    assert "What it logged stays" in question
    answer = client.post(f"/edges/{edge.pk}/remove")
    assert answer["Location"] == f"/pipelines/{pipeline.pk}/edges"
    edge.refresh_from_db()
    assert edge.removed_at is not None
    assert "Edge oven-1 is removed." in client.get(answer["Location"]).content.decode()
    assert client.get(f"/edges/{edge.pk}").status_code == 200, "its history stays"


def test_ban_and_its_end(browser: Callable[..., Client], make_edge: Callable[..., Edge], member: User) -> None:
    client, edge = browser(member), make_edge()
    assert client.post(f"/edges/{edge.pk}/ban", {"reason": "stolen"})["Location"] == f"/edges/{edge.pk}"
    assert "Banned" in client.get(f"/edges/{edge.pk}").content.decode()
    assert "lift the ban first" in client.get(f"/edges/{edge.pk}/reissue").content.decode()
    client.post(f"/edges/{edge.pk}/unban")
    edge.refresh_from_db()
    assert edge.banned_at is None


def test_reissue_ends_the_earlier_bundle(
    browser: Callable[..., Client], make_edge: Callable[..., Edge], member: User
) -> None:
    client, edge = browser(member), make_edge()
    assert "stop working" in client.get(f"/edges/{edge.pk}/reissue").content.decode()
    answer = client.post(f"/edges/{edge.pk}/reissue", headers=HTMX)
    assert "shown only once" in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert edge.join_tokens.filter(revoked_at=None).count() == 1
    assert edge.join_tokens.count() == 2


def test_edge_page_says_what_to_do(
    browser: Callable[..., Client], make_edge: Callable[..., Edge], viewer: User
) -> None:
    page = browser(viewer).get(f"/edges/{make_edge().pk}").content.decode()
    assert "Never joined" in page
    assert "What to do:" in page
    assert "1 CPU, 1Gi memory" in page
    assert "spiffe://" in page
    assert "Added" in page


def test_edge_page_says_of_how_many_events_it_shows_the_newest_and_leads_to_all_of_them(
    browser: Callable[..., Client],
    statuses: Callable[..., dict[str, int]],
    make_edge: Callable[..., Edge],
    viewer: User,
    owner: User,
) -> None:
    edge, client = make_edge(), browser(viewer)
    url = f"/edges/{edge.pk}"
    events = f"{url}/events"
    check_newest_events(client, url, edge, "token_refused")

    operations.remove_edge(actor=owner, edge=edge, reason="scrapped")
    first, second = (client.get(events, {"page": page}).content.decode() for page in (1, 2))
    assert "Page 1 of 2, 61 in all" in first
    assert "scrapped" in first and "reason-59" in first and "reason-11" in first
    assert "reason-10" in second and "Added" in second
    assert statuses(events) == {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}


def test_list_needs_as_many_queries_for_many_edges_as_for_one(
    browser: Callable[..., Client], pipeline: Pipeline, make_edge: Callable[..., Edge], member: User
) -> None:
    client, address = browser(member), f"/pipelines/{pipeline.pk}/edges"
    make_edge("edge-0")
    client.get(address)
    with CaptureQueriesContext(connection) as one:
        client.get(address)
    for number in range(1, 20):
        make_edge(f"edge-{number}")
    with CaptureQueriesContext(connection) as many:
        client.get(address)
    assert len(many) == len(one)
