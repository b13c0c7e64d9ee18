"""What people do in a browser, for the tests that drive one."""

import json

from onnx import TensorProto, helper
from playwright.sync_api import Locator, Page, expect

from tests.e2e.centers import RunningCenter

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PUBLISH = 60_000  # milliseconds
RECORDS = json.dumps([{"x": [1.0, 2.0, 3.0]}]).encode()


def log_in(page: Page, center: RunningCenter) -> None:
    page.goto("/")
    page.get_by_label("E-mail address").fill(center.admin_email)
    page.get_by_label("Password").fill(center.admin_password)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".workspace-menu")).to_be_visible()


def weighted_sum(weight: float) -> bytes:
    """A model whose `y` is the sum of three numbers, each times `weight`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 1], [weight] * 3)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "sum", inputs, outputs, [weights])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def upload(window: Page, name: str, content: bytes) -> None:
    window.get_by_role("link", name="Models", exact=True).first.click()
    window.get_by_role("link", name="Upload").first.click()
    window.get_by_label("Name").fill(name)
    file = {"name": f"{name}.onnx", "mimeType": "application/octet-stream", "buffer": content}
    window.get_by_label("File", exact=True).set_input_files(file)  # type: ignore[arg-type]
    window.get_by_role("button", name="Upload").click()
    expect(window.get_by_text("is ready.")).to_be_visible()
    expect(window.get_by_text("Ready", exact=True)).to_be_visible()


def choose_step(window: Page, model: str) -> None:
    select = window.get_by_label("Model version of step 1")
    select.select_option(select.locator("option", has_text=model).get_attribute("value"))
    window.get_by_role("button", name="Create version").click()


def newest(window: Page) -> Locator:
    return window.locator("li.version").first


def add_edge(window: Page, name: str) -> str:
    """Adds an edge in the dialog; the bundle that it shows."""
    window.get_by_role("link", name="Edges", exact=True).click()
    window.get_by_role("link", name="Add").first.click()
    dialog = window.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Add edge").click()
    expect(dialog.get_by_text("shown only once")).to_be_visible()
    bundle = dialog.locator("#bundle").inner_text()
    expect(dialog.locator("pre", has_text="docker run").first).to_contain_text(bundle)
    dialog.get_by_text("I have copied it").click()
    expect(dialog).to_be_hidden()
    return bundle


def add_three_edges(window: Page, name: str) -> None:
    """Adds `name-01` to `name-03` to the pipeline that is open; the page that shows their bundles once is open then."""
    address = window.url.partition("#")[0]
    window.goto(f"{address}/edges/add-many")
    window.get_by_label("Or a pattern").fill(f"{name}-{{n:02}}")
    window.get_by_label("How many").fill("3")
    window.get_by_role("button", name="Add the edges").click()
    expect(window.get_by_role("heading", name="3 edges are ready to join")).to_be_visible()
