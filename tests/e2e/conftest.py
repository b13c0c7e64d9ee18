"""Whole centers and engines for end-to-end tests."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from examples.center import Engine
from scripts import services
from tests.e2e import centers
from tests.e2e.browsing import FLAGS, PUBLISH, choose_step, log_in, newest, upload, weighted_sum

expect.set_options(timeout=30_000)  # milliseconds: a busy machine is slow, not wrong
SHAPES = {"embedded": centers.embedded, "production": centers.production}


@pytest.fixture(scope="session", params=list(SHAPES))
def center(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[centers.RunningCenter]:
    """A running center of each shape in turn, shared by all tests: leave it running, use names of your own."""
    with SHAPES[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def engine(center: centers.RunningCenter, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """`engine(bundle, NAME="value")` starts `opsengine serve`; the same `folder` again is the same site later on."""
    started: list[Engine] = []

    def start(bundle: str, *, folder: Path | None = None, **environment: str) -> Engine:
        started.append(Engine(folder or tmp_path / f"engine-{len(started)}", bundle, center.registry | environment))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = services.find("chromium")
    if not path:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def window(chromium: Browser, center: centers.RunningCenter) -> Iterator[Page]:
    """A window in which the administrator is logged in. What the browser complains of fails the test."""
    context = chromium.new_context(base_url=center.url, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(f"{said.text} {said.location}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    log_in(page, center)
    yield page
    context.close()
    assert not complaints


@pytest.fixture
def published(window: Page) -> str:
    """The name of a workspace and of its pipeline, of which one version was published by the black box."""
    name = f"job-{secrets.token_hex(4)}"
    window.goto("/workspaces/new")
    window.get_by_label("Name").fill(name)
    window.get_by_role("button", name="Create workspace").click()
    expect(window.get_by_text(f"Workspace {name} is ready.")).to_be_visible()  # the page before has links too
    upload(window, "sum-once", weighted_sum(1.0))
    window.get_by_role("link", name="Pipelines", exact=True).first.click()
    window.get_by_role("link", name="Create the first pipeline").click()
    window.get_by_label("Name").fill(name)
    window.get_by_role("button", name="Create pipeline").click()
    choose_step(window, "sum-once")
    newest(window).get_by_role("button", name="Publish").click()
    expect(newest(window).locator(".box-published")).to_be_visible(timeout=PUBLISH)
    expect(window.get_by_role("button", name="Publish")).to_have_count(0)
    return name
