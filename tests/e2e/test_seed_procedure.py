"""The guides that users were given, step by step and in their words: "Wallaroo Dashboard Pipeline Publish Management"
with "Replace Pipeline Publish", and "Enable Wallaroo Edge Deployment Registry" in the administration's console."""

import re
from base64 import b64decode

import pytest
from playwright.sync_api import Locator, Page, expect

from examples.center import wait_for
from tests.e2e.browsing import PUBLISH, add_edge, choose_step, log_in, newest
from tests.e2e.centers import RunningCenter

pytestmark = pytest.mark.e2e

# "For the deployment, the engine URL is specified with the following environmental variables"
VARIABLES = ("OCI_REGISTRY", "CONFIG_CPUS", "OCI_USERNAME", "OCI_PASSWORD", "PIPELINE_URL")
BUNDLE = ["BUNDLE_VERSION", "EDGE_NAME", "JOIN_TOKEN", "OPSCENTER_HOST", "PIPELINE_URL", "WORKSPACE_ID"]


def log_out(window: Page) -> None:
    window.locator(".user-menu > summary").click()
    window.get_by_role("button", name="Log out").click()
    expect(window.get_by_label("Password")).to_be_visible()


def select_workspace(window: Page, name: str) -> None:
    """ "From the Workspace select menu on the upper left, select the workspace the pipeline is associated in." """
    menu = window.locator(".workspace-menu > summary")
    place, width = menu.bounding_box(), window.evaluate("window.innerWidth")
    assert place and place["x"] + place["width"] < width / 2 and place["y"] < 100
    menu.click()
    window.locator(".workspace-menu").get_by_role("button", name=name, exact=True).click()
    expect(menu).to_contain_text(name)


def colour(box: Locator) -> tuple[int, ...]:
    told = str(box.evaluate("element => getComputedStyle(element).backgroundColor"))
    return tuple(int(number) for number in re.findall(r"\d+", told)[:3])


def is_right_of_its_version(box: Locator, line: Locator) -> bool:
    identifier, place = line.locator(".version-id code").bounding_box(), box.bounding_box()
    assert identifier and place
    return place["x"] >= identifier["x"] + identifier["width"]


def copied(window: Page, button: Locator) -> str:
    """What a copy button puts on the clipboard, which is emptied before."""
    window.evaluate("navigator.clipboard.writeText('')")
    button.click()
    return str(wait_for("the copy", lambda: window.evaluate("navigator.clipboard.readText()")))


def command(details: Locator, title: str) -> Locator:
    heading = details.page.get_by_role("heading", name=title, exact=True)
    return details.locator(".command").filter(has=heading)


def fact(details: Locator, name: str) -> Locator:
    return details.locator(f"dt:text-is('{name}') + dd")


def make_version(window: Page) -> Locator:
    """One more version of the pipeline, whose line has the black box."""
    count = window.locator("li.version").count()
    window.get_by_role("link", name="New version").click()
    choose_step(window, "sum-once")
    expect(window.locator("li.version")).to_have_count(count + 1)
    return newest(window)


def read_bundle(bundle: str) -> dict[str, str]:
    lines = b64decode(bundle).decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == [f"export {name}" for name in BUNDLE]
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def test_publishes_are_accessed_published_and_deployed_as_the_guide_says(
    window: Page, center: RunningCenter, published: str
) -> None:
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    window.emulate_media(color_scheme="light", reduced_motion="reduce")
    log_out(window)
    log_in(window, center)  # "Login to the Wallaroo Dashboard through your browser."
    select_workspace(window, published)
    window.get_by_role(
        "link", name=published, exact=True
    ).click()  # "Select the pipeline to view the Pipeline Versions"
    expect(window.get_by_role("link", name="Version History")).to_have_attribute("aria-current", "page")

    line = make_version(window)
    black, grey = (
        line.get_by_role("button", name="Publish"),
        window.locator("li.version").last.locator(".box-published"),
    )
    assert is_right_of_its_version(black, line) and max(colour(black)) < 48
    assert max(colour(grey)) - min(colour(grey)) < 24 and min(colour(grey)) > 96
    black.click()  # "Select the black box", then "Wait for the publish to complete."
    expect(line.locator(".box-published")).to_be_visible(timeout=PUBLISH)
    expect(window.get_by_role("button", name="Publish", exact=False)).to_have_count(0)
    assert colour(line.locator(".box-published")) == colour(grey)

    line.get_by_text("Check info").click()
    uuid = line.locator(".version-id code").inner_text()
    location = fact(line, "Pipeline location")
    expect(location).to_contain_text(f"/pipelines/{published}:{uuid}")
    expect(fact(line, "Pipeline chart")).to_contain_text(f"/charts/{published}")
    expect(fact(line, "Engine URL")).to_be_visible()
    url = location.locator("code").inner_text()
    assert copied(window, location.get_by_role("button", name="Copy")) == url
    for title, words in {
        "docker run": ("docker run -p 8080:8080", ":/persist", *VARIABLES, url),
        "podman run": ("podman run -p 8080:8080", ":/persist", *VARIABLES, url),
        "compose.yaml": ("services:", "engine:", "image:", "8080:8080", "volumes:", "environment:", *VARIABLES, url),
        "helm install": ("helm install", f"oci://{fact(line, 'Pipeline chart').locator('code').inner_text()}", uuid),
    }.items():
        text = copied(window, command(line, title).get_by_role("button", name="Copy"))
        assert text == command(line, title).locator("pre").inner_text()
        assert [word for word in words if word not in text] == [], title


def test_edge_is_added_filtered_removed_and_added_again_by_its_name(window: Page, published: str) -> None:
    """ "Wallaroo edges require unique names. To create a new edge bundle with the same name": Remove Edge, Add Edge."""
    name = f"{published}-edge"
    first = read_bundle(add_edge(window, name))
    assert first["EDGE_NAME"] == name and first["OPSCENTER_HOST"].endswith("/edge")
    window.get_by_label("Filter Edges").fill("nothing of this name")
    expect(window.get_by_text("No edge matches the filter.")).to_be_visible()
    window.get_by_label("Filter Edges").fill(name)
    window.get_by_role("row", name=name).get_by_role("link", name="Remove").click()
    dialog = window.get_by_role("dialog")
    expect(dialog).to_contain_text("Everything this edge sends is refused at once")
    dialog.get_by_role("button", name="Remove edge").click()
    expect(window.get_by_text(f"Edge {name} is removed.")).to_be_visible()
    again = read_bundle(add_edge(window, name))
    assert again["EDGE_NAME"] == name and again["JOIN_TOKEN"] != first["JOIN_TOKEN"]
    assert again["PIPELINE_URL"] == first["PIPELINE_URL"]


def test_publish_is_replaced_after_the_model_update_considerations(window: Page, published: str) -> None:
    edge = f"{published}-edge"
    add_edge(window, edge)
    window.get_by_role("link", name="Version History").click()
    line = make_version(window)
    replace = line.get_by_role("link", name="Replace")
    replace.focus()
    window.keyboard.press("Enter")
    dialog = window.get_by_role("dialog")
    expect(dialog.get_by_text(f"1 edge switches: {edge}.")).to_be_visible()
    for consideration in ("Inference logs:", "Model drift detection:", "Inference requests:"):
        expect(dialog.get_by_role("listitem").filter(has_text=consideration)).to_be_visible()
    window.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(replace).to_be_focused()

    window.keyboard.press("Enter")
    dialog.get_by_role("checkbox").check()
    dialog.get_by_role("button", name="Publish and replace").click()
    expect(line.locator(".box-published")).to_be_visible(timeout=PUBLISH)
    line.get_by_text("Check info").click()
    expect(fact(line, "Replaces")).to_contain_text(published)
    uuid = line.locator(".version-id code").inner_text()
    window.get_by_role("link", name="Edges", exact=True).click()
    expect(window.get_by_role("row", name=edge)).to_contain_text(uuid[:8])  # what it should run now


def test_edge_registry_and_observability_are_set_in_the_console_as_the_guide_says(
    window: Page, center: RunningCenter, published: str
) -> None:
    window.locator(".user-menu > summary").click()
    window.get_by_role("link", name="Admin console").click()
    navigation = window.locator("#nav-sidebar")
    navigation.get_by_role("link", name="Registry settings").click()
    # "Registry URL, email, username, password": what the center began with stays, the password is never shown.
    expect(window.locator("[name=enabled]")).to_be_checked()
    expect(window.locator("[name=registry]")).to_have_value(center.registry["OCI_REGISTRY"])
    expect(window.locator("[name=new_password]")).to_have_value("")
    window.locator("[name=email]").fill("registry@example.com")
    with window.expect_navigation():
        window.get_by_role("button", name="Save", exact=True).click()
    navigation.get_by_role("link", name="Registry settings").click()
    expect(window.locator("[name=email]")).to_have_value("registry@example.com")
    with window.expect_navigation():
        window.get_by_role("link", name="Test connection").click()
    expect(window.get_by_text(re.compile(r"The registry passed \d+ tests"))).to_be_visible()

    # "enable Enable pipelines deployed on the edge to send data back to the OpsCenter"
    navigation.get_by_role("link", name="Observability").click()
    window.get_by_role("link", name="Switch", exact=True).click()
    window.get_by_label("On: rows arrive").check()
    with window.expect_navigation():
        window.get_by_role("button", name="Save", exact=True).click()
    expect(window.get_by_text("Observability is on: edges send their logs")).to_be_visible()
