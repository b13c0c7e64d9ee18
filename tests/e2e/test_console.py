"""The admin console in a browser: nothing that axe-core knows to shut people out, no complaint of the browser,
no page wider than a phone, and every control within reach of the keyboard."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from examples.center import Engine, wait_for
from scripts import crawl
from tests.e2e.browsing import RECORDS, add_edge
from tests.e2e.centers import RunningCenter
from tests.e2e.test_dashboard_pages import SCHEMES, axe, complaints_of  # noqa: F401

pytestmark = pytest.mark.e2e

DASHBOARD = ("/workspaces", "/pipelines", "/models", "/edges", "/first-steps", "/publishes", "/rollouts", "/assays")
ADDED = (
    "/admin/catalog/user/add/",
    "/admin/logs/observabilitychange/add/",
    "/admin/publishing/engineimageschange/add/",
)
ASKED = ("/admin/publishing/signingkey/rotate/", "/admin/edges/signingkey/rotate/")
LOOK = {"/admin/", "/admin/publishing/registrysettings/0/change/", "/admin/catalog/workspace/0/change/", *ADDED}
CONTROLS = """() => [...document.querySelectorAll("*")].filter((element) => {
    const clicked = element.hasAttribute("x-on:click") && element.textContent.trim();
    const native = "a[href], button, input, select, textarea, label, summary";
    return clicked && !element.matches(native) && !element.querySelector(native) && element.tabIndex < 0;
}).map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture
def console(window: Page, center: RunningCenter, published: str) -> Iterator[Page]:
    """The console of a center in which there is something: addresses that are not found fail the test too."""
    absent: list[str] = []
    window.on("response", lambda answer: absent.append(answer.url) if answer.status >= 400 else None)
    window.emulate_media(reduced_motion="reduce")
    center.api().put("observability", {"enabled": True})
    center.api().put("engine-images", {"images": f"{center.registry['OCI_REGISTRY']}/none/engine:1"})
    yield window
    center.api().put("engine-images", {"images": None})
    assert not absent


def pages_of(page: Page, center: RunningCenter) -> Iterator[str]:
    """One of every kind of address in the console, while it is open."""
    for address in crawl.pages(page, center.url, ("/admin/", *ASKED, *ADDED), DASHBOARD):
        if address.startswith("/admin/"):
            yield address


def test_axe_finds_nothing_in_the_console_and_nothing_is_out_of_reach_or_too_wide(
    console: Page,
    center: RunningCenter,
    axe: str,  # noqa: F811
) -> None:
    if center.shape != "embedded":
        pytest.skip("the pages are the same in both shapes")
    found: dict[str, Any] = {}
    seen = set()
    for address in pages_of(console, center):
        seen.add(crawl.kind_of(address))
        for scheme in SCHEMES:
            console.emulate_media(color_scheme=scheme)
            if complaints := complaints_of(console, axe):
                found[f"{address} ({scheme})"] = complaints
        if unreachable := console.evaluate(CONTROLS):
            found[f"{address} by keyboard"] = unreachable
        for width in (360, 3840):
            console.set_viewport_size({"width": width, "height": 740})
            if (more := console.evaluate("document.documentElement.scrollWidth - window.innerWidth")) > 0:
                found[f"{address} at {width}"] = more
        console.set_viewport_size({"width": 1280, "height": 900})
    assert not found
    assert seen >= LOOK and len(seen) > 40


def test_console_is_steered_by_keyboard(console: Page, center: RunningCenter) -> None:
    console.goto(f"{center.url}/admin/")
    console.keyboard.press("Tab")
    expect(console.get_by_role("link", name="Skip to the content")).to_be_focused()
    navigation = console.locator("#nav-sidebar")
    expect(navigation).to_be_visible()
    console.get_by_role("button", name="Show or hide the navigation").focus()
    console.keyboard.press("Enter")
    expect(navigation).to_be_hidden()
    console.keyboard.press("Space")
    expect(navigation).to_be_visible()


def test_observability_is_switched_in_the_console_and_told_in_the_dashboard(
    console: Page, center: RunningCenter, published: str
) -> None:
    def switch(choice: str) -> None:
        console.goto(f"{center.url}/admin/logs/observabilitychange/")
        console.get_by_role("link", name="Switch", exact=True).click()
        console.get_by_label(choice).check()
        with console.expect_navigation():
            console.get_by_role("button", name="Save", exact=True).click()

    switch("Off: logs are refused")
    try:
        expect(console.get_by_text("Observability is off: logs are refused")).to_be_visible()
        console.goto(f"{center.url}/first-steps")
        expect(console.get_by_text("Observability is off: edges keep what they infer")).to_be_visible()
    finally:
        switch("On: rows arrive")
    expect(console.get_by_text("Observability is on: edges send their logs")).to_be_visible()


def test_engine_holds_its_rows_while_observability_is_off_and_sends_all_of_them_afterwards(
    console: Page, center: RunningCenter, published: str, engine: Callable[..., Engine]
) -> None:
    """The job whole: a real engine at a real center. It is off before the engine has any row."""
    address, edge = console.url.partition("#")[0], f"{published}-held"
    api = center.api()
    running = engine(add_edge(console, edge))
    wait_for("the engine to serve", running.is_ready)
    api.put("observability", {"enabled": False})
    try:
        for _ in range(5):
            running.infer(RECORDS, "application/json; format=pandas-records")
        wait_for("the engine to say that rows are held", lambda: running.get("/readyz").get("warnings"))
        (told,) = running.get("/readyz")["warnings"]
        assert told.startswith("Log rows are held here: Observability is off at this ops center")
        assert running.get("/status.json")["logs"]["backlog"] == 5
        (found,) = [one for one in api.get("edges")["results"] if one["name"] == edge]
        account = f"edges/{found['id']}/logs/accounting"
        wait_for("the check-in that tells of them", lambda: pending_of(api.get(account)) == 5)
        assert api.get(account)["is_held"] is True
        console.goto(f"{address}/logs")
        expect(console.get_by_text("Observability is off.")).to_be_visible()
    finally:
        api.put("observability", {"enabled": True})
    # It asks ever less often, at last once a minute.
    wait_for("the rows", lambda: received_of(api.get(account)) == 5, seconds=150)
    wait_for("the engine to hold none", lambda: running.get("/readyz") == {"status": "ready"})
    assert [one["gaps"] for one in api.get(account)["epochs"]] == [[]]


def pending_of(account: Any) -> int:
    return sum(one["pending"] or 0 for one in account["epochs"])


def received_of(account: Any) -> int:
    return sum(one["received"] for one in account["epochs"])


def test_engine_images_are_looked_up_from_the_console(console: Page, center: RunningCenter) -> None:
    console.goto(f"{center.url}/admin/publishing/engineimageschange/")
    expect(console.get_by_text("none/engine:1").first).to_be_visible()
    with console.expect_navigation():
        console.get_by_role("button", name="Check the registries").click()
    expect(console.get_by_text("cannot be taken along")).to_be_visible()


def test_key_is_rotated_after_the_question(console: Page, center: RunningCenter) -> None:
    console.goto(f"{center.url}/admin/edges/signingkey/")
    console.get_by_role("link", name="Rotate the key").click()
    expect(console.get_by_text("Edges notice nothing.")).to_be_visible()
    with console.expect_navigation():
        console.get_by_role("button", name="Rotate the key").click()
    expect(console.get_by_text("are signed with key")).to_be_visible()
    expect(console.get_by_role("cell", name="signs", exact=True)).to_have_count(1)


def test_first_steps_have_nothing_that_axe_finds(console: Page, center: RunningCenter, axe: str) -> None:  # noqa: F811
    console.goto(f"{center.url}/first-steps")
    expect(console.get_by_role("heading", name="First steps")).to_be_visible()
    for scheme in SCHEMES:
        console.emulate_media(color_scheme=scheme)
        assert not complaints_of(console, axe)


def test_login_page_has_nothing_that_axe_finds(console: Page, center: RunningCenter, axe: str) -> None:  # noqa: F811
    context = console.context.browser.new_context(reduced_motion="reduce")  # type: ignore[union-attr]
    page = context.new_page()
    page.goto(f"{center.url}/admin/")
    page.get_by_label("Password").wait_for()
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert not complaints_of(page, axe)
    context.close()
