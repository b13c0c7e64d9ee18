"""The back button within a filtered list, links to a filter, and where the keyboard is."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browsing import add_edge, add_three_edges
from tests.e2e.centers import EMBEDDED

pytestmark = [pytest.mark.e2e, EMBEDDED]

# The middle of what has the focus belongs to it, or to what it is in or labels: nothing lies above it.
COVERED = """() => {
  const element = document.activeElement;
  const box = element.getBoundingClientRect();
  if (element === document.body || !box.width || !box.height) return null;
  const [x, y] = [box.left + Math.min(box.width, innerWidth) / 2, box.top + Math.min(box.height, innerHeight) / 2];
  const above = document.elementFromPoint(x, y);
  return above && (element.contains(above) || above.contains(element)) ? null : element.outerHTML.slice(0, 150);
}"""
OUTLINE = """() => {
  const style = getComputedStyle(document.activeElement);
  const shown = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  return document.activeElement === document.body || shown ? null : document.activeElement.outerHTML.slice(0, 150);
}"""


@pytest.fixture
def fleet(window: Page, published: str) -> str:
    """The name that the pipeline's three edges begin with; their list is open."""
    address = window.url.partition("#")[0]
    add_three_edges(window, published)
    window.goto(f"{address}/edges")
    return published


def test_back_and_forward_go_from_filter_to_filter(window: Page, fleet: str) -> None:
    rows = window.locator("#edges tbody tr")
    expect(rows).to_have_count(3)
    window.get_by_label("Filter Edges").fill(f"{fleet}-02")
    expect(rows).to_have_count(1)
    window.get_by_label("State", exact=True).select_option("online")
    expect(window.get_by_text("No edge matches the filter.")).to_be_visible()
    expect(window).to_have_url(re.compile("state=online"))

    window.go_back()
    expect(rows).to_have_count(1)
    expect(window.get_by_role("banner")).to_be_visible()
    expect(window.get_by_label("Filter Edges")).to_have_value(f"{fleet}-02")
    expect(window.get_by_label("State", exact=True)).to_have_value("")
    window.go_back()
    expect(rows).to_have_count(3)
    expect(window.get_by_label("Filter Edges")).to_have_value("")
    window.go_forward()
    expect(rows).to_have_count(1)
    expect(window.get_by_label("Filter Edges")).to_have_value(f"{fleet}-02")
    window.get_by_role("link", name="Add edge").click()
    expect(window.get_by_role("dialog")).to_be_visible()


def test_links_to_filters_show_what_is_filtered(window: Page, fleet: str) -> None:
    address, name = window.url.removesuffix("/edges"), f"{fleet}-01"
    for link, fields in {
        f"edges?q={name}&state=never+joined&serves=other": {"Filter Edges": name, "Serves": "other"},
        "edges?state=banned": {"State": "banned"},
        f"logs?edge={name}&anomaly=count": {"Edge": name, "Failed validation": "count"},
        f"logs/charts?edge={name}&by=edge": {"Edge": name, "A line for each": "edge"},
    }.items():
        window.goto(f"{address}/{link}")
        for label, value in fields.items():
            expect(window.get_by_label(label, exact=True)).to_have_value(value)


def test_menu_closes_by_escape_or_when_the_focus_leaves_it(window: Page, published: str) -> None:
    summary, menu = window.locator(".workspace-menu > summary"), window.locator(".workspace-menu .menu-panel")
    summary.focus()
    window.keyboard.press("Enter")
    expect(menu).to_be_visible()
    window.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(summary).to_be_focused()
    window.keyboard.press("Enter")
    menu.get_by_role("link", name="New workspace").focus()
    window.keyboard.press("Tab")
    expect(menu).to_be_hidden()
    expect(window.get_by_role("link", name="Pipelines", exact=True).first).to_be_focused()


def test_focus_is_always_seen_and_nothing_covers_it(window: Page, published: str) -> None:
    """Forth and back through a page that is higher than its window, under a header that stays."""
    window.emulate_media(reduced_motion="reduce")
    window.set_viewport_size({"width": 1280, "height": 400})
    window.locator("li.version").first.get_by_text("Check info").click()
    expect(window.get_by_text("Pipeline location", exact=True)).to_be_visible()
    wrong = set()
    for key in ("Tab", "Shift+Tab"):
        for _ in range(40):
            window.keyboard.press(key)
            wrong |= {window.evaluate(COVERED), window.evaluate(OUTLINE)}
    assert wrong == {None}


def test_dialog_gives_the_focus_back_to_what_opened_it(window: Page, published: str) -> None:
    add_edge(window, f"{published}-edge")
    for name in ("Remove", "New bundle", "Add edge"):
        opener = window.locator("main").get_by_role("link", name=name).first
        opener.focus()
        window.keyboard.press("Enter")
        expect(window.get_by_role("dialog")).to_be_visible()
        window.keyboard.press("Escape")
        expect(window.get_by_role("dialog")).to_be_hidden()
        expect(opener).to_be_focused()
