"""The whole job in a browser: from an empty workspace to rows that an edge inferred, and on to a replaced publish."""

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from examples.center import Engine, wait_for
from tests.e2e.browsing import PUBLISH, RECORDS, add_edge, choose_step, log_in, newest, upload, weighted_sum
from tests.e2e.centers import RunningCenter

pytestmark = pytest.mark.e2e

CHECK_IN = 30_000
PAGES = ("", "/workspaces", "/workspaces/new")


def answer(engine: Engine) -> float:
    return float(engine.infer(RECORDS, "application/json; format=pandas-records")[0]["out"]["y"][0])


def test_from_an_empty_workspace_to_rows_and_a_replaced_publish(
    window: Page, published: str, engine: Callable[..., Engine]
) -> None:
    details = newest(window)
    details.get_by_text("Check info").click()
    expect(details.get_by_text("Pipeline location", exact=True)).to_be_visible()
    expect(details.locator("pre", has_text="helm install")).to_be_visible()

    edge = f"{published}-edge"
    running = engine(add_edge(window, edge))
    expect(window.get_by_role("row", name=edge).get_by_text("Never joined")).to_be_visible()
    wait_for("the engine to serve", running.is_ready)
    row = window.get_by_role("row", name=edge)
    expect(row.get_by_text("Online")).to_be_visible(timeout=CHECK_IN)
    expect(row.get_by_text("the same")).to_be_visible(timeout=CHECK_IN)
    assert answer(running) == 6.0

    window.get_by_role("link", name="Logs", exact=True).click()
    log = window.locator(".logs tbody tr:not(.whole)")
    expect(log).to_have_count(1, timeout=CHECK_IN)  # by itself, also when the page was open before the row came
    expect(log.first).to_contain_text(edge)
    expect(log.first).to_contain_text("sum-once")
    log.first.get_by_text("JSON").click()
    expect(window.locator(".logs .whole pre").first).to_contain_text('"partition"')

    upload(window, "sum-twice", weighted_sum(2.0))
    window.get_by_role("link", name="Pipelines", exact=True).first.click()
    window.get_by_role("link", name=published, exact=True).click()
    window.get_by_role("link", name="New version").click()
    choose_step(window, "sum-twice")
    newest(window).get_by_role("link", name="Replace").click()
    dialog = window.get_by_role("dialog")
    expect(dialog.get_by_text(f"1 edge switches: {edge}.")).to_be_visible()
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Publish and replace").click()
    expect(dialog).to_be_hidden()
    expect(newest(window).locator(".box-published")).to_be_visible(timeout=PUBLISH)
    wait_for("the engine to switch", lambda: answer(running) == 12.0)

    window.get_by_role("link", name="Edges", exact=True).click()
    expect(window.get_by_role("row", name=edge).get_by_text("the same")).to_be_visible(timeout=CHECK_IN)
    window.get_by_role("link", name="Logs", exact=True).click()
    window.wait_for_url("**/logs")

    def is_shown() -> bool:
        window.goto(window.url)
        return "sum-twice" in log.first.inner_text()

    wait_for("the new model's row", is_shown)


def test_removal_is_confirmed_with_its_effect(window: Page, published: str) -> None:
    edge = f"{published}-edge"
    add_edge(window, edge)
    row = window.get_by_role("row", name=edge)
    row.get_by_role("link", name="Remove").click()
    dialog = window.get_by_role("dialog")
    expect(dialog.get_by_text("cannot come back")).to_be_visible()
    window.keyboard.press("Escape")
    expect(row).to_be_visible()
    row.get_by_role("link", name="Remove").click()
    dialog.get_by_role("button", name="Remove edge").click()
    expect(window.get_by_text(f"Edge {edge} is removed.")).to_be_visible()
    expect(row).to_have_count(0)


def test_filter_stays_in_the_address_over_back_and_reload(window: Page, published: str) -> None:
    for name in ("oven", "gate"):
        add_edge(window, f"{published}-{name}")
    rows = window.locator("#edges tbody tr")
    expect(rows).to_have_count(2)
    window.get_by_label("Filter Edges").fill("oven")
    expect(rows).to_have_count(1)
    expect(window).to_have_url(re.compile("q=oven"))
    window.reload()
    expect(rows).to_have_count(1)
    expect(window.get_by_label("Filter Edges")).to_have_value("oven")
    window.get_by_role("link", name=f"{published}-oven", exact=True).click()
    expect(window.get_by_role("heading", name=f"{published}-oven")).to_be_visible()
    window.go_back()
    expect(rows).to_have_count(1)
    expect(window.get_by_role("banner")).to_be_visible()


def test_theme_follows_the_system_until_one_is_chosen(window: Page) -> None:
    root = window.locator("html")
    window.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    window.get_by_role("button", name="Change between light and dark").click()
    expect(root).to_have_attribute("data-bs-theme", "light")
    window.reload()
    expect(root).to_have_attribute("data-bs-theme", "light")


def test_no_page_is_wider_than_a_phone(window: Page, published: str) -> None:
    add_edge(window, f"{published}-edge-with-a-rather-long-name")
    tabs = [window.url, window.url.replace("/edges", ""), window.url.replace("/edges", "/logs")]
    add = window.url + "/add"
    window.set_viewport_size({"width": 360, "height": 740})
    for address in (*PAGES, *tabs, add, window.url.replace("/edges", "/versions/new"), "/publishes/1"):
        window.goto(address or "/")
        wider = window.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"{window.url} is {wider} px too wide"


def test_publishing_works_by_keyboard_alone(window: Page, published: str) -> None:
    window.get_by_role("link", name="New version").focus()
    window.keyboard.press("Enter")
    window.get_by_role("button", name="Create version").focus()
    window.keyboard.press("Enter")
    black_box = newest(window).get_by_role("button", name="Publish")
    expect(black_box).to_be_visible()
    for _ in range(40):
        window.keyboard.press("Tab")
        if black_box.evaluate("element => element === document.activeElement"):
            break
    window.keyboard.press("Space")
    expect(newest(window).locator(".box-published")).to_be_visible(timeout=PUBLISH)


def test_everything_works_without_scripts(chromium: Browser, center: RunningCenter, tmp_path: Path) -> None:
    context = chromium.new_context(base_url=center.url, java_script_enabled=False)
    window = context.new_page()
    log_in(window, center)
    name = f"plain-{secrets.token_hex(4)}"
    window.goto("/workspaces/new")
    window.get_by_label("Name").fill(name)
    window.get_by_role("button", name="Create workspace").click()
    expect(window.get_by_text(f"Workspace {name} is ready.")).to_be_visible()
    upload(window, "sum", weighted_sum(1.0))
    window.get_by_role("link", name="Pipelines", exact=True).first.click()
    window.get_by_role("link", name="Create the first pipeline").click()
    window.get_by_label("Name").fill(name)
    window.get_by_role("button", name="Create pipeline").click()
    choose_step(window, "sum")
    publish = newest(window).get_by_role("button", name="Publish")
    expect(publish).to_be_visible()
    with window.expect_navigation():  # a page asked for before the form's answer is there would cut the form off
        publish.click()
    versions = window.url.partition("#")[0]  # with its fragment it would not be asked for again

    def arrived() -> bool:
        window.goto(versions)
        return newest(window).locator(".box-published").count() == 1

    wait_for("the publish to arrive", arrived)
    newest(window).get_by_text("Check info").click()
    newest(window).get_by_role("link", name="Open the details").click()
    expect(window.get_by_text("Pipeline location", exact=True)).to_be_visible()
    window.get_by_role("link", name="add an edge").click()
    window.get_by_label("Name").fill(f"{name}-edge")
    window.get_by_role("button", name="Add edge").click()
    expect(window.locator("#bundle")).to_be_visible()
    window.get_by_text("I have copied it").click()
    expect(window.get_by_role("link", name=f"{name}-edge", exact=True)).to_be_visible()
    context.close()
