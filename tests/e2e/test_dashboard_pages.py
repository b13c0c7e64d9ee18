"""What holds for every page, in a browser: nothing that axe-core knows to shut people out, no script that was blocked,
no page wider than a phone, and little to load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from examples.center import Engine, wait_for
from scripts import crawl
from tests.e2e.browsing import RECORDS, add_edge, add_three_edges
from tests.e2e.centers import EMBEDDED, RunningCenter

pytestmark = [pytest.mark.e2e, EMBEDDED]

AXE = Path(__file__).resolve().parents[2] / "node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FIRST_LOAD = 150 * 1024  # bytes as they are sent, besides the charts'
CHARTS = "/vendor/uplot/"
CONSOLE = ("/admin/",)  # the admin console has unfold's own pages
SCHEMES: tuple[Any, ...] = ("light", "dark")


@pytest.fixture
def axe() -> str:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: scripts/assets fetches it")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture
def at_work(window: Page, center: RunningCenter, published: str, engine: Callable[..., Engine]) -> str:
    """The address of a pipeline with an edge, rows, a fleet token, an export and an assay."""
    address = window.url.partition("#")[0]
    running = engine(add_edge(window, f"{published}-edge"))
    wait_for("the engine to serve", running.is_ready)
    for _ in range(12):
        running.infer(RECORDS, "application/json; format=pandas-records")
    window.goto(f"{address}/fleet-tokens/new")
    window.get_by_label("Pattern").fill("shop-{n}")
    window.get_by_label("At most so many edges").fill("5")
    window.get_by_role("button", name="Make the token").click()
    with window.expect_navigation():
        window.get_by_text("I have copied it").click()

    def has_rows() -> bool:
        window.goto(f"{address}/logs")
        return window.locator(".logs tbody tr").count() >= 24

    wait_for("the rows", has_rows)
    window.goto(f"{address}/logs/exports")
    with window.expect_navigation():  # the next page would cut the form off
        window.get_by_role("button", name="Export").click()
    window.goto(f"{address}/drift/new")
    window.get_by_label("Name", exact=True).fill("sums")
    window.get_by_label("Field").fill("out.y[0]")
    window.get_by_role("button", name="Create assay").click()
    window.get_by_role("heading", name="sums").wait_for()
    return address.removeprefix(center.url)


def complaints_of(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("(rules) => axe.run({ runOnly: rules })", RULES)
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]]


def test_axe_finds_nothing_on_any_page_light_or_dark(
    window: Page,
    center: RunningCenter,
    at_work: str,
    axe: str,
) -> None:
    window.emulate_media(reduced_motion="reduce")
    found: dict[str, list[str]] = {}
    seen = set()
    for address in crawl.pages(window, center.url, (at_work, f"{at_work}/logs/charts", "/"), CONSOLE):
        seen.add(crawl.kind_of(address))
        for scheme in SCHEMES:
            window.emulate_media(color_scheme=scheme)
            if complaints := complaints_of(window, axe):
                found[f"{address} ({scheme})"] = complaints
    assert not found
    assert {"/pipelines/0/logs/charts", "/assays/0", "/edges/0", "/pipelines/0/edges/add-many", "/publishes/0"} <= seen


def test_no_page_is_wider_than_a_phone(window: Page, center: RunningCenter, at_work: str) -> None:
    window.set_viewport_size({"width": 360, "height": 740})
    wider = {}
    for address in crawl.pages(window, center.url, (at_work, f"{at_work}/logs/charts", "/"), CONSOLE):
        more = window.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if more > 0:
            wider[address] = more
    assert not wider


def test_first_load_is_small_and_in_one_round(window: Page, center: RunningCenter, at_work: str) -> None:
    sizes: dict[str, int] = {}

    for address in ("/", at_work, f"{at_work}/edges", f"{at_work}/logs/charts"):
        fresh = window.context.browser.new_context(storage_state=window.context.storage_state())  # type: ignore[union-attr]
        page = fresh.new_page()
        sizes.clear()
        page.on("requestfinished", lambda request: sizes.update({request.url: request.sizes()["responseBodySize"]}))
        page.goto(center.url + address)
        page.wait_for_load_state("networkidle")
        fresh.close()
        ours = sum(size for url, size in sizes.items() if CHARTS not in url)
        assert 0 < ours < FIRST_LOAD, {address: sizes}


def test_charts_are_drawn_without_a_blocked_script_or_style(window: Page, at_work: str) -> None:
    window.goto(f"{at_work}/logs/charts")
    window.locator(".chart canvas").first.wait_for()
    assert window.locator(".chart canvas").count() == window.locator("[data-chart]").count() >= 4
    window.get_by_label("A line for each").select_option("edge")
    drawn = window.locator("#charts script[type='application/json']").first
    wait_for("a line for each edge", lambda: "-edge" in (drawn.text_content() or ""))  # `expect` reads past scripts
    window.locator(".chart canvas").first.wait_for()
    window.locator("[data-chart-table] summary").first.click()
    expect(window.locator("[data-chart-table][open] tbody tr")).not_to_have_count(0)


def test_reference_of_the_api_shows_itself(window: Page, center: RunningCenter) -> None:
    window.goto(f"{center.url}/api/v1/docs")
    window.get_by_text("/api/v1/pipelines").first.wait_for()
    assert "unsafe" not in (window.request.get(f"{center.url}/api/v1/docs").headers["content-security-policy"])


def test_edges_are_selected_and_tagged_at_once(window: Page, published: str) -> None:
    add_three_edges(window, published)
    with window.expect_download() as saved:
        window.get_by_role("link", name="Save all as CSV").click()
    assert Path(saved.value.path()).read_text().count(published) >= 3
    window.get_by_text("I have saved them").click()
    window.get_by_label("Select all edges of this page").check()
    window.get_by_role("button", name="Change tags").click()
    dialog = window.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Change the tags of 3 edges")).to_be_visible()
    dialog.get_by_label("Add tags").fill("north")
    dialog.get_by_role("button", name="Change tags").click()
    expect(window.get_by_text("The tags of 3 edges are changed.")).to_be_visible()
    expect(window.get_by_role("link", name="north")).to_have_count(3)


def test_filter_is_there_when_the_first_bundle_was_closed_by_escape(window: Page, published: str) -> None:
    window.get_by_role("link", name="Edges", exact=True).click()
    expect(window.get_by_label("Filter Edges")).to_have_count(0)
    window.get_by_role("link", name="Add").first.click()
    dialog = window.get_by_role("dialog")
    dialog.get_by_label("Name").fill(f"{published}-edge")
    dialog.get_by_role("button", name="Add edge").click()
    expect(dialog.get_by_text("shown only once")).to_be_visible()
    window.keyboard.press("Escape")
    expect(window.get_by_role("row", name=f"{published}-edge")).to_be_visible()
    expect(window.get_by_label("Filter Edges")).to_be_visible()
    window.get_by_label("Filter Edges").fill("nothing like it")
    expect(window.get_by_text("No edge matches the filter.")).to_be_visible()


def test_version_with_a_split_and_a_validation_is_built(window: Page, published: str) -> None:
    window.get_by_role("link", name="New version").click()
    window.get_by_role("button", name="Validations", exact=True).click()
    window.get_by_label("Name of a validation of step 2").fill("large")
    window.get_by_label("Column of a validation of step 2").fill("out.y[0]")
    window.get_by_label("Value of a validation of step 2").fill("100")
    window.keyboard.press("Enter")
    expect(window.locator("li.version")).to_have_count(2)
    window.get_by_role("link", name="New version").click()
    expect(window.get_by_label("Name of a validation of step 2").first).to_have_value("large")
