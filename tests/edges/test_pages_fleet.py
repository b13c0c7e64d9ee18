"""Pages of many edges: the list of a workspace, bulk adding, fleet tokens, selections."""

import base64
import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from catalog.models import Pipeline, User, Workspace
from edges import operations, provisioning
from edges.models import Edge, EdgeEvent, FleetToken
from publishing import engine_config
from publishing.models import Publish
from tests.edges.conftest import join_token_in

ALL = {"owner": 200, "member": 200, "viewer": 200, "stranger": 404}
EDITORS = {"owner": 200, "member": 200, "viewer": 403, "stranger": 404}
REFUSED = {"viewer": 403, "stranger": 404}


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """SQLite gives each test the same ids, by which the figures of large fleets are kept for seconds."""
    cache.clear()


@pytest.fixture
def publish(make_publish: Callable[..., Publish]) -> Publish:
    return make_publish(engine_config=engine_config.checked(None))


@pytest.fixture
def pipeline(publish: Publish) -> Pipeline:
    return publish.pipeline_version.pipeline


@pytest.fixture
def make_edges(publish: Publish, owner: User) -> Callable[..., list[Edge]]:
    def make(*names: str, **fields: Any) -> list[Edge]:
        new = [provisioning.NewEdge(name, tuple(fields.get("tags", ()))) for name in names]
        return [added.edge for added in provisioning.add_edges(actor=owner, publish=publish, edges=new)]

    return make


@pytest.fixture
def token(publish: Publish, owner: User) -> FleetToken:
    return provisioning.make_fleet_token(actor=owner, publish=publish, pattern="shop-{n:04}", max_edges=100).token


def bulk(publish: Publish, **fields: Any) -> dict[str, Any]:
    return {"publish": publish.pk, "cpus": "1", "memory": "1Gi"} | fields


def files_in(page: str) -> dict[str, str]:
    """What the files that a page offers hold, by their names."""
    found = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page)
    return {name: base64.b64decode(content).decode() for name, content in found}


def test_list_of_a_workspace_shows_the_edges_of_all_its_pipelines(
    browser: Callable[..., Client],
    workspace: Workspace,
    viewer: User,
    owner: User,
    make_edges: Callable[..., list[Edge]],
    make_publish: Callable[..., Publish],
) -> None:
    make_edges("oven-1")
    other = make_publish(pipeline="gates")
    operations.add_edge(actor=owner, publish=other, name="gate-1")
    page = browser(viewer).get(f"/workspaces/{workspace.pk}/edges").content.decode()
    assert "oven-1" in page
    assert "gate-1" in page
    assert "With the selected edges" not in page


def test_list_of_a_workspace_without_a_publish_is_empty(
    browser: Callable[..., Client], workspace: Workspace, viewer: User
) -> None:
    for path in ("", "?q=oven", "?state=online"):
        answer = browser(viewer).get(f"/workspaces/{workspace.pk}/edges{path}")
        assert answer.status_code == 200
        assert "<tbody" not in answer.content.decode()


def test_who_may_see_and_change_many_edges(
    statuses: Callable[..., dict[str, int]],
    workspace: Workspace,
    pipeline: Pipeline,
    token: FleetToken,
    make_edges: Callable[..., list[Edge]],
) -> None:
    (edge,) = make_edges("oven-1")
    assert statuses(f"/workspaces/{workspace.pk}/edges") == ALL
    assert statuses(f"/pipelines/{pipeline.pk}/fleet-tokens") == ALL
    for address in (
        f"/pipelines/{pipeline.pk}/edges/add-many",
        f"/pipelines/{pipeline.pk}/fleet-tokens/new",
        f"/fleet-tokens/{token.pk}/revoke",
    ):
        assert statuses(address) == EDITORS, address
        assert statuses(address, "post", without=("owner", "member")) == REFUSED, address
    selected = f"/workspaces/{workspace.pk}/edges/selected"
    assert statuses(f"{selected}?verb=remove&edge={edge.pk}") == EDITORS
    sent = {"verb": "remove", "edge": str(edge.pk)}
    assert statuses(selected, "post", without=("owner", "member"), **sent) == REFUSED
    edge.refresh_from_db()
    token.refresh_from_db()
    assert edge.removed_at is None
    assert token.revoked_at is None


def test_list_needs_as_many_queries_for_many_edges_as_for_one(
    browser: Callable[..., Client],
    workspace: Workspace,
    pipeline: Pipeline,
    publish: Publish,
    owner: User,
    make_edges: Callable[..., list[Edge]],
) -> None:
    client = browser(owner)
    addresses = (f"/workspaces/{workspace.pk}/edges", f"/pipelines/{pipeline.pk}/edges")

    def counted() -> list[int]:
        found = []
        for address in addresses:
            client.get(address)
            with CaptureQueriesContext(connection) as queries:
                assert client.get(address).status_code == 200
            found.append(len(queries))
        return found

    make_edges("one")
    few = counted()
    now = timezone.now()
    Edge.objects.bulk_create(
        Edge(
            name=f"edge-{number:05}",
            publish=publish,
            created_by=owner,
            tags=[f"site-{number % 50}"],
            joined_at=now,
            last_contact=now - timedelta(minutes=number % 60),
            session_lapses_at=now + timedelta(hours=number % 168),
        )
        for number in range(10_000)
    )
    many = counted()  # fewer: the figures of a large fleet are kept for some seconds
    assert all(later <= first for first, later in zip(few, many, strict=True)), (few, many)
    assert max(few) <= 15


def test_pasted_names_become_edges_whose_bundles_are_shown_once(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    client, address = browser(member), f"/pipelines/{pipeline.pk}/edges/add-many"
    answer = client.post(address, bulk(publish, rows="oven-1\noven-2\n", tags="site-a"))
    page = answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert "2 edges are ready to join" in page
    files = files_in(page)
    assert set(files) == {"edge-bundles.csv", "oven-1.env", "oven-2.env"}
    rows = list(csv.DictReader(io.StringIO(files["edge-bundles.csv"])))
    assert [row["name"] for row in rows] == ["oven-1", "oven-2"]
    assert all(row["edge_bundle"] in row["docker_run"] for row in rows)
    assert files["oven-1.env"] == f"EDGE_BUNDLE={rows[0]['edge_bundle']}\n"
    assert [edge.tags for edge in Edge.objects.all()] == [["site-a"]] * 2
    later = client.get(f"/pipelines/{pipeline.pk}/edges").content.decode()
    assert join_token_in(rows[0]["edge_bundle"]) not in later
    assert rows[0]["edge_bundle"] not in later


def test_csv_gives_each_edge_its_own_fields(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    rows = "name,tags,cpus\noven-1,a;b,2\noven-2,,\n"
    browser(member).post(f"/pipelines/{pipeline.pk}/edges/add-many", bulk(publish, rows=rows))
    assert list(Edge.objects.values_list("name", "tags", "cpus")) == [("oven-1", ["a", "b"], 2.0), ("oven-2", [], 1.0)]


def test_pattern_names_edges(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    sent = bulk(publish, pattern="shop-{n:03}", first="9", count="12")
    page = browser(member).post(f"/pipelines/{pipeline.pk}/edges/add-many", sent).content.decode()
    names = list(Edge.objects.values_list("name", flat=True))
    assert names == [f"shop-{number:03}" for number in range(9, 21)]
    assert len(csv.reader(io.StringIO(files_in(page)["edge-bundles.csv"])).__next__()) == 3
    assert "docker run" not in page, "of more than a few edges the commands are in the file only"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "one of the two"),
        ({"rows": "a", "pattern": "b-{n}", "count": "1"}, "one of the two"),
        ({"pattern": "shop"}, "Say how many"),
        ({"pattern": "shop", "count": "2"}, "pattern must hold the number once"),
        ({"rows": "ok\nno spaces"}, "Edge 2 (&#x27;no spaces&#x27;)"),
        ({"rows": "name,cpus\noven,many"}, "Line 2: cpus must be a number."),
        ({"rows": "twice\ntwice"}, "more than once: twice"),
        ({"rows": "taken"}, "these names are in use: taken"),
    ],
)
def test_refused_bulk_says_why_and_adds_nothing(
    browser: Callable[..., Client],
    pipeline: Pipeline,
    publish: Publish,
    member: User,
    make_edges: Callable[..., list[Edge]],
    fields: dict[str, str],
    told: str,
) -> None:
    make_edges("taken")
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/edges/add-many", bulk(publish, **fields))
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert Edge.objects.count() == 1


def test_fleet_token_is_shown_once_listed_and_revoked(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    client, address = browser(member), f"/pipelines/{pipeline.pk}/fleet-tokens"
    sent = bulk(publish, pattern="shop-{n:04}", max_edges="500", hours="48", tags="shop")
    answer = client.post(f"{address}/new", sent, headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    bundle = page.partition('id="bundle" tabindex="0">')[2].partition("<")[0]
    assert "shown only once" in page
    assert page.count(bundle) > 3, "in the commands too"
    token = FleetToken.objects.get()
    assert (token.pattern, token.max_edges, token.tags) == ("shop-{n:04}", 500, ["shop"])
    listed = client.get(address).content.decode()
    assert "shop-{n:04}" in listed
    assert "0 of 500" in listed
    assert bundle not in listed
    assert "Open" in listed
    assert client.post(f"/fleet-tokens/{token.pk}/revoke", {"reason": "leaked"}).status_code == 302
    after = client.get(address).content.decode()
    assert "Revoked" in after
    assert "leaked" in after


def test_refused_fleet_token_says_why(
    browser: Callable[..., Client], pipeline: Pipeline, publish: Publish, member: User
) -> None:
    sent = bulk(publish, pattern="shop", max_edges="5", hours="1")
    answer = browser(member).post(f"/pipelines/{pipeline.pk}/fleet-tokens/new", sent)
    assert answer.status_code == 422
    assert "pattern must hold the number once" in answer.content.decode()
    assert not FleetToken.objects.exists()


@pytest.mark.parametrize(
    ("verb", "told"),
    [("remove", "cannot come back"), ("ban", "refused until the ban is lifted"), ("reissue", "stop working")],
)
def test_selection_is_asked_for_with_its_effect(
    browser: Callable[..., Client],
    workspace: Workspace,
    member: User,
    make_edges: Callable[..., list[Edge]],
    verb: str,
    told: str,
) -> None:
    edges = make_edges("oven-1", "oven-2")
    asked = {"verb": verb, "edge": [str(edge.pk) for edge in edges]}
    page = browser(member).get(f"/workspaces/{workspace.pk}/edges/selected", asked).content.decode()
    assert told in page
    assert "oven-1, oven-2" in page
    assert not Edge.objects.filter(banned_at__isnull=False).exists()


def test_selected_edges_are_removed_banned_tagged_and_given_bundles(
    browser: Callable[..., Client],
    workspace: Workspace,
    pipeline: Pipeline,
    member: User,
    make_edges: Callable[..., list[Edge]],
) -> None:
    edges, client = make_edges("oven-1", "oven-2", tags=["old"]), browser(member)
    address = f"/workspaces/{workspace.pk}/edges/selected"
    chosen = {"edge": [str(edge.pk) for edge in edges], "back": pipeline.pk}
    answer = client.post(address, chosen | {"verb": "tag", "add": "new, site", "take": "old"})
    assert answer["Location"] == f"/pipelines/{pipeline.pk}/edges"
    assert [edge.tags for edge in Edge.objects.all()] == [["new", "site"]] * 2
    assert EdgeEvent.objects.filter(kind=EdgeEvent.Kind.TAGGED, actor=member).count() == 2
    page = client.post(address, chosen | {"verb": "reissue"}).content.decode()
    assert set(files_in(page)) == {"edge-bundles.csv", "oven-1.env", "oven-2.env"}
    client.post(address, chosen | {"verb": "ban", "reason": "theft"})
    assert Edge.objects.filter(banned_at__isnull=False).count() == 2
    refused = client.post(address, chosen | {"verb": "reissue"})
    assert refused.status_code == 422
    assert "This edge is banned" in refused.content.decode()
    client.post(address, chosen | {"verb": "unban"})
    assert not Edge.objects.filter(banned_at__isnull=False).exists()
    client.post(address, chosen | {"verb": "remove"})
    assert Edge.objects.filter(removed_at__isnull=False).count() == 2


def test_selection_reaches_no_edge_of_another_workspace(
    browser: Callable[..., Client], stranger: User, workspace: Workspace, make_edges: Callable[..., list[Edge]]
) -> None:
    (edge,) = make_edges("oven-1")
    client = browser(stranger)
    client.post("/workspaces/new", {"name": "elsewhere"})
    own = Workspace.objects.get(name="elsewhere")
    sent = {"verb": "remove", "edge": str(edge.pk)}
    answer = client.post(f"/workspaces/{own.pk}/edges/selected", sent)
    assert "are gone" in answer.content.decode()
    edge.refresh_from_db()
    assert edge.removed_at is None


def test_summary_counts_states_and_tells_of_sessions_that_end(
    browser: Callable[..., Client], workspace: Workspace, viewer: User, make_edges: Callable[..., list[Edge]]
) -> None:
    make_edges("online", "ending", "new")
    now = timezone.now()
    Edge.objects.filter(name__in=["online", "ending"]).update(joined_at=now, last_contact=now)
    Edge.objects.filter(name="online").update(session_lapses_at=now + timedelta(days=7))
    Edge.objects.filter(name="ending").update(session_lapses_at=now + timedelta(hours=3))
    page = browser(viewer).get(f"/workspaces/{workspace.pk}/edges").content.decode()
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for counted in ("3 edges", "1 never joined", "1 online", "1 session lapsing", "0 serve what they should"):
        assert counted in text
    assert "1 edge needs a new bundle unless heard of within 36 hours: ending" in text


def test_few_of_many_sessions_that_end_are_read_and_named(
    browser: Callable[..., Client], viewer: User, pipeline: Pipeline, make_edges: Callable[..., list[Edge]]
) -> None:
    now = timezone.now()
    for hours, edge in enumerate(make_edges(*(f"shop-{number}" for number in range(8))), 1):
        edge.joined_at = edge.last_contact = now
        edge.session_lapses_at = now + timedelta(hours=hours)
        edge.save()
    with CaptureQueriesContext(connection) as queries:
        page = browser(viewer).get(f"/pipelines/{pipeline.pk}/edges").text
    warning = page.partition("alert-warning")[2].partition("</div></div>")[0]
    assert "8 edges need a new bundle" in warning
    assert re.findall(r"shop-\d", warning) == [f"shop-{number}" for number in range(5)]
    assert "and more" in warning
    [soon] = [query["sql"] for query in queries if 'ORDER BY "edges_edge"."session_lapses_at"' in query["sql"]]
    assert soon.endswith("LIMIT 5")
    assert soon.startswith('SELECT "edges_edge"."id" AS "pk" FROM')


def test_first_edge_brings_the_filter_into_the_open_page(
    browser: Callable[..., Client], pipeline: Pipeline, member: User, make_edges: Callable[..., list[Edge]]
) -> None:
    client, address = browser(member), f"/pipelines/{pipeline.pk}/edges"
    assert f'hx-get="{address}?empty=1"' in client.get(address).content.decode()
    make_edges("oven-1")
    fragment = client.get(f"{address}?empty=1", headers={"HX-Request": "true"}).content.decode()
    assert "hx-swap-oob" in fragment
    assert "empty=1" not in fragment.replace("hx-swap-oob", "")
    again = client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert "hx-swap-oob" not in again, "what somebody types into the filter stays"
