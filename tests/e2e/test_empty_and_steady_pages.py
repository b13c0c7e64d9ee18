"""Pages with nothing to show, pages that say no; that no page moves under the eyes or waits for a second answer."""

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, Route, expect

from examples.center import Engine, wait_for
from scripts import crawl
from tests.e2e.browsing import RECORDS, add_edge, newest
from tests.e2e.centers import EMBEDDED, ROOT, RunningCenter
from tests.e2e.test_dashboard_pages import CONSOLE, SCHEMES, axe, complaints_of  # noqa: F401

pytestmark = [pytest.mark.e2e, EMBEDDED]

STEADY = 0.05  # of the layout, over everything that happens on a page; 0.1 is what is called good
# A shift within half a second of an input counts as its effect, so what people do by themselves is not held against us.
WATCH = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    const moved = (entry.sources || []).map((source) => source.node?.outerHTML?.slice(0, 100) ?? "");
    window.shifts.push({ value: entry.value, moved });
  }
}).observe({ type: "layout-shift", buffered: true });
"""


def in_center(center: RunningCenter, code: str) -> str:
    """What a piece of code prints that runs with the center's settings."""
    words = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=center.environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def newcomer(chromium: Browser, center: RunningCenter) -> Iterator[Page]:
    """Somebody who is in no workspace yet."""
    email, password = f"{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(12)
    in_center(center, f"from catalog.models import User; User.objects.create_user({email!r}, {password!r})")
    context = chromium.new_context(base_url=center.url, reduced_motion="reduce")
    page = context.new_page()
    crawl.log_in(page, center.url, email, password)
    yield page
    context.close()


def answer_with(status: int, page: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, body=page, content_type="text/html")


def complaints_in_both(page: Page, axe: str) -> list[str]:  # noqa: F811
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found += complaints_of(page, axe)
    return found


def test_axe_finds_nothing_where_there_is_nothing_yet(newcomer: Page, axe: str) -> None:  # noqa: F811
    found: dict[str, list[str]] = {}

    def look() -> None:
        if complaints := complaints_in_both(newcomer, axe):
            found[newcomer.url] = complaints

    expect(newcomer.get_by_role("heading", name="You are in no workspace yet")).to_be_visible()
    look()
    newcomer.goto("/first-steps")
    look()
    newcomer.goto("/workspaces/new")
    newcomer.get_by_label("Name").fill(secrets.token_hex(4))
    newcomer.get_by_role("button", name="Create workspace").click()
    expect(newcomer.get_by_role("heading", name="No models yet")).to_be_visible()
    look()
    for section, said in (("Fleet", "No edges yet"), ("Pipelines", "No pipelines yet")):
        newcomer.get_by_role("link", name=section, exact=True).click()
        expect(newcomer.get_by_role("heading", name=said)).to_be_visible()
        look()
    newcomer.get_by_role("link", name="Create the first pipeline").click()
    newcomer.get_by_label("Name").fill(f"empty-{secrets.token_hex(4)}")
    newcomer.get_by_role("button", name="Create pipeline").click()
    expect(newcomer.get_by_role("heading", name="No usable model in this workspace")).to_be_visible()
    look()
    pipeline = newcomer.url.removesuffix("/versions/new")
    newcomer.goto(pipeline)
    expect(newcomer.get_by_role("heading", name="No version yet")).to_be_visible()
    look()
    for part in ("edges", "edges/add-many", "fleet-tokens", "rollouts", "rollouts/new", "logs", "logs/charts"):
        newcomer.goto(f"{pipeline}/{part}")
        look()
    for part in ("logs/exports", "logs?edge=nobody", "edges?q=nobody", "drift", "drift/new"):
        newcomer.goto(f"{pipeline}/{part}")
        look()
    assert not found


def test_axe_finds_nothing_on_pages_that_say_no(newcomer: Page, center: RunningCenter, axe: str) -> None:  # noqa: F811
    found: dict[str, list[str]] = {}

    def look(name: str, answer: Response | None, status: int) -> None:
        assert answer, name
        assert answer.status == status, name
        expect(newcomer.get_by_role("heading", level=1)).to_be_visible()
        if complaints := complaints_in_both(newcomer, axe):
            found[name] = complaints

    look("nothing there", newcomer.goto("/nothing"), 404)
    look("not theirs", newcomer.goto("/pipelines/1000000"), 404)
    for name, status in (("csrfmiddlewaretoken", 403), ("workspace", 400)):
        newcomer.goto("/workspaces/new")
        newcomer.evaluate(
            """(name) => {
              const form = document.querySelector(".workspace-menu form");
              const field = form.querySelector(`input[name=${name}]`) ?? document.createElement("input");
              Object.assign(field, { name, type: "hidden", value: "wrong" });
              form.append(field);
            }""",
            name,
        )
        with newcomer.expect_navigation() as sent:
            newcomer.evaluate("document.querySelector('.workspace-menu form').submit()")
        look(f"a form with a wrong {name}", sent.value, status)
    for view, status in (("server_error(request)", 500), ("bad_request(request, ValueError())", 400)):
        drawn = in_center(
            center,
            "from django.test import RequestFactory; from opscenter import views;"
            f"request = RequestFactory().get('/'); print(views.{view}.content.decode())",
        )
        newcomer.route("**/broken", answer_with(status, drawn))
        look(view, newcomer.goto("/broken"), status)
        newcomer.unroute("**/broken")
    assert not found


@pytest.fixture
def watched(window: Page) -> BrowserContext:
    window.context.add_init_script(WATCH)
    return window.context


def moved(page: Page) -> list[str]:
    """What moved by itself on the page that is open, when that was more than is borne."""
    shifts = page.evaluate("window.shifts")
    return [str(shift) for shift in shifts] if sum(shift["value"] for shift in shifts) > STEADY else []


@pytest.mark.usefixtures("watched")
def test_no_page_moves_while_it_loads_or_when_a_part_of_it_is_replaced(
    window: Page, center: RunningCenter, published: str, engine: Callable[..., Engine]
) -> None:
    address = window.url.partition("#")[0].removeprefix(center.url)
    running = engine(add_edge(window, f"{published}-edge"))
    wait_for("the engine to serve", running.is_ready)
    running.infer(RECORDS, "application/json; format=pandas-records")
    found = {}
    for width in (1280, 360):
        window.set_viewport_size({"width": width, "height": 740})
        for page in crawl.pages(window, center.url, (address, f"{address}/logs/charts", "/"), CONSOLE):
            if shifts := moved(window):
                found[f"{page} at {width}"] = shifts
    window.goto(address)
    newest(window).get_by_text("Check info").click()
    expect(window.get_by_text("Pipeline location", exact=True)).to_be_visible()
    window.goto(f"{address}/edges")
    with window.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
        pass  # the table asks for itself again
    window.get_by_label("Filter Edges").fill("nothing like it")
    expect(window.get_by_text("No edge matches the filter.")).to_be_visible()
    if shifts := moved(window):
        found["the edges, filtered"] = shifts
    assert not found


def test_page_with_little_on_it_does_not_scroll(window: Page) -> None:
    window.goto("/workspaces/new")
    for width in (1280, 390):
        window.set_viewport_size({"width": width, "height": 900})
        assert window.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0, width


def test_every_page_is_useful_with_its_first_answer(window: Page, center: RunningCenter, published: str) -> None:
    """Without scripts nothing more is fetched than the page and its style, and what the page is for is there."""
    address = window.url.partition("#")[0].removeprefix(center.url)
    add_edge(window, f"{published}-edge")
    browser = window.context.browser
    assert browser
    context = browser.new_context(storage_state=window.context.storage_state(), java_script_enabled=False)
    asked: list[str] = []
    found = {}
    for page in list(crawl.pages(window, center.url, (address, "/"), CONSOLE)):
        plain = context.new_page()
        asked.clear()
        plain.on("request", lambda request: asked.append(request.url))
        plain.goto(center.url + page)
        ours = [url for url in asked if "/static/" not in url and not url.startswith("data:")]
        if len(ours) != 1 or not plain.locator("main :is(h1, h2)").first.is_visible():
            found[page] = ours
        plain.close()
    context.close()
    assert not found
