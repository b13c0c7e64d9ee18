"""A model's file is dropped on the upload page, as a browser tells of it: a drop event with a real DataTransfer."""

import base64

import pytest
from playwright.sync_api import JSHandle, Page, expect

from tests.e2e.browsing import weighted_sum
from tests.e2e.centers import EMBEDDED

pytestmark = [pytest.mark.e2e, EMBEDDED]

TRANSFER = """(content) => {
    const held = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    held.items.add(new File([bytes], "Sum of Three.onnx", { type: "application/octet-stream" }));
    return held;
}"""


def transfer_of(window: Page, content: bytes) -> JSHandle:
    return window.evaluate_handle(TRANSFER, base64.b64encode(content).decode())


def test_a_dropped_file_fills_the_form_and_is_uploaded(window: Page, published: str) -> None:
    window.get_by_role("link", name="Models", exact=True).first.click()
    window.get_by_role("link", name="Upload").first.click()
    area, held = window.locator("[data-drop]"), transfer_of(window, weighted_sum(3.0))
    area.dispatch_event("dragover", {"dataTransfer": held})
    expect(area).to_contain_class("is-over")
    area.dispatch_event("drop", {"dataTransfer": held})
    expect(area).not_to_contain_class("is-over")
    expect(window.get_by_label("Name")).to_have_value("sum-of-three")
    assert window.get_by_label("File", exact=True).evaluate("(field) => field.files[0].name") == "Sum of Three.onnx"
    window.get_by_role("button", name="Upload").click()
    expect(window.get_by_text("is ready.")).to_be_visible(timeout=60_000)
    expect(window.get_by_role("heading", name="sum-of-three")).to_be_visible()


def test_a_drop_keeps_a_name_that_was_typed(window: Page, published: str) -> None:
    window.get_by_role("link", name="Models", exact=True).first.click()
    window.get_by_role("link", name="Upload").first.click()
    window.get_by_label("Name").fill("my-own-name")
    window.locator("[data-drop]").dispatch_event("drop", {"dataTransfer": transfer_of(window, weighted_sum(4.0))})
    expect(window.get_by_label("Name")).to_have_value("my-own-name")
    window.get_by_role("button", name="Upload").click()
    expect(window.get_by_role("heading", name="my-own-name")).to_be_visible(timeout=60_000)
