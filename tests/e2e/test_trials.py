"""A version is tried in a browser, by the engine beside the center."""

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browsing import RECORDS, newest

pytestmark = pytest.mark.e2e
ANSWER = 60_000  # milliseconds


def test_a_version_is_tried_with_the_records_that_it_begins_with_and_with_others(window: Page, published: str) -> None:
    newest(window).get_by_role("link", name="Try").click()
    expect(window.get_by_role("heading", name=f"Try {published}")).to_be_visible()
    records = window.get_by_label("Records")
    expect(records).to_have_value('[\n  {\n    "x": [\n      0.0,\n      0.0,\n      0.0\n    ]\n  }\n]')
    records.fill(RECORDS.decode())
    window.get_by_role("button", name="Run").click()
    answer = window.get_by_role("region", name="The answer")
    expect(answer).to_be_visible(timeout=ANSWER)
    expect(answer.get_by_role("row").nth(1)).to_contain_text("y 6")
    window.go_back()
    expect(window.get_by_role("button", name="Run")).to_be_visible()
