"""What pages ask of the database when there is much of everything: rows and work are counted, never time."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bench.logs.measure import analyze
from bench.pages.measure import FEW, LISTS, PAGES, Filled
from catalog.models import User
from logs import queries as logs
from logs import rollups

FULL, MORE = 210, 300  # of everything: more than a page shows, and than it suggests
MANY = 1200
ALL = PAGES | LISTS
STEPS = 1000  # of SQLite's machine, which are counted in such portions
# What is read once for each edge, version and publish is below, what is read for each of each is hundreds above.
WORK_FOR_EACH = {"sqlite": 600, "postgresql": 60}
# Of a statement where one has few of everything: less than it takes to look once at each thing of others.
WORK_OF_FEW = {"sqlite": 5 * MANY, "postgresql": MANY}


@pytest.fixture
def browser(owner: User, settings: Any) -> Client:
    settings.EDGE_CHECKIN_SECONDS = 3600  # whoever is online stays so, however slow the machine is
    client = Client()
    client.force_login(owner)
    return client


def filled(owner: User, *counts: int) -> list[Filled]:
    made = [Filled(owner, count) for count in counts]
    rollups.roll_up_waiting(timezone.now)
    for one in made:
        one.log_everywhere()
    analyze()
    return made


def statements(client: Client, address: str) -> list[str]:
    """What a page reads, with nothing kept of an earlier look at it."""
    cache.clear()
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in queries if query["sql"].startswith("SELECT")]


def rows_of(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return len(cursor.fetchall())


def work_of(statement: str) -> int:
    """Steps of SQLite's machine; rows that PostgreSQL's plan had in hand, thrown away ones too."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}")
            told = cursor.fetchone()[0]
        plan = json.loads(told) if isinstance(told, str) else told
        return sum(rows for rows in in_hand(plan[0]["Plan"]))
    portions = 0

    def count() -> int:
        nonlocal portions
        portions += 1
        return 0

    connection.connection.set_progress_handler(count, STEPS)
    try:
        rows_of(statement)
    finally:
        connection.connection.set_progress_handler(None, 0)
    return portions * STEPS


def in_hand(node: dict[str, Any]) -> Iterator[float]:
    own = node["Actual Rows"] + sum(count for name, count in node.items() if name.startswith("Rows Removed"))
    yield own * node["Actual Loops"]
    for part in node.get("Plans", ()):
        yield from in_hand(part)


def test_a_page_reads_no_more_rows_when_there_are_more_pages(browser: Client, owner: User) -> None:
    full, more = filled(owner, FULL, MORE)
    read = {page: [sum(map(rows_of, statements(browser, one.address(page)))) for one in (full, more)] for page in ALL}
    grew = {page: counts for page, counts in read.items() if counts[1] > counts[0]}
    assert not grew


@pytest.mark.parametrize("is_analysed", [False, True])
def test_no_page_walks_all_edges_for_each_version(browser: Client, owner: User, is_analysed: bool) -> None:
    if connection.vendor == "postgresql" and not is_analysed:
        pytest.skip("PostgreSQL analyses by itself; before, it knows nothing of any table")
    (many,) = filled(owner, MANY)
    if is_analysed:
        # All edges are on one publish of one pipeline: what is true of most pipelines is not of this one.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    most = WORK_FOR_EACH[connection.vendor] * MANY
    found = {page: sum(map(work_of, statements(browser, many.address(page)))) for page in ALL}
    assert {page: work for page, work in found.items() if work > most} == {}


# What pages and lists sort of what is wide; a page of rows is read by its keys afterwards.
SORTED = {
    "edges": "edges_edge",
    "edges, filtered": "edges_edge",
    "fleet": "edges_edge",
    "fleet tokens": "edges_fleettoken",
    **{name: "edges_edge" for name in LISTS if name.startswith("REST edges")},
    "REST publishes": "publishing_publish",
    "REST rollouts": "rollouts_rollout",
    "REST versions": "catalog_pipelineversion",
    "REST versions of a model": "catalog_modelversion",
}


@pytest.mark.parametrize("page", SORTED)
def test_only_ids_are_sorted(browser: Client, owner: User, page: str) -> None:
    (one,) = filled(owner, FULL)
    sorted_pages = [
        statement
        for statement in statements(browser, one.address(page))
        if "ORDER BY" in statement and "LIMIT 50" in statement and f'FROM "{SORTED[page]}"' in statement
    ]
    assert len(sorted_pages) == 1
    assert sorted_pages[0].partition(" FROM ")[0].count(",") == 0


def test_a_small_list_is_not_looked_for_among_those_of_others(browser: Client, owner: User, stranger: User) -> None:
    # Those of others are older and newer: it matters from which end something is looked for.
    Filled(stranger, MANY)
    (few,) = filled(owner, FEW)
    Filled(stranger, MANY + 1)
    analyze()
    found = {page: max(map(work_of, statements(browser, few.address(page)))) for page in ALL}
    assert {page: work for page, work in found.items() if work > WORK_OF_FEW[connection.vendor]} == {}


def test_a_list_is_the_same_whether_what_it_is_of_is_named_or_looked_up(
    browser: Client, owner: User, stranger: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, _ = filled(owner, FEW)[0], Filled(stranger, FEW + 1)
    named = {page: browser.get(few.address(page)).json() for page in LISTS}
    partitions = logs.partitions_of(few.pipeline)
    monkeypatch.setattr("catalog.queries.NAMED_WORKSPACES", 0)
    monkeypatch.setattr("publishing.queries.NAMED_PUBLISHES", 0)
    monkeypatch.setattr("logs.queries.FEW_ASSIGNMENTS", 0)
    assert {page: browser.get(few.address(page)).json() for page in LISTS} == named
    assert logs.partitions_of(few.pipeline) == partitions
    assert named["REST edges"]["count"] == len(partitions) == FEW
    assert named["REST rollouts"]["count"] == FEW + 1
