"""Pages that change by themselves or answer: what is looked at stays, on every screen, and nobody is shut out."""

import itertools
import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from onnx import TensorProto, helper
from playwright.sync_api import Page, expect

from examples.center import wait_for
from rollouts.windows import DAYS
from tests.e2e.browsing import weighted_sum
from tests.e2e.centers import EMBEDDED, RunningCenter
from tests.e2e.test_dashboard_pages import axe  # noqa: F401
from tests.e2e.test_empty_and_steady_pages import complaints_in_both, in_center
from tests.e2e.test_killed_processes import Site

pytestmark = [pytest.mark.e2e, EMBEDDED]

WALL = {"width": 3840, "height": 2160}
PHONE = {"width": 360, "height": 740}
WIDE = 256  # numbers of a tensor
ROWS = 120
REASON = "The golden request gave another answer than it was published with, so the old model keeps serving. " * 3
ANSWER = 60_000  # milliseconds
LIVE = 10_000  # milliseconds from answer to answer of charts
MINUTES = 30
CUT = """() => [...document.querySelectorAll(".answer td *")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.outerHTML.slice(0, 150))"""

# Members whom nobody moves: the rollout is paused, and none of them was pointed at its target.
MEMBERS = """
from rollouts.models import Rollout
rollout = Rollout.objects.get(pk={pk})
for member, (bucket, reason) in zip(rollout.members.order_by("pk"), {places!r}, strict=True):
    member.bucket, member.reason, member.on_target = bucket, reason, False
    member.save()
"""
# An assay whose next window is never due.
ASSAY = """
from catalog.models import Pipeline, User
from drift.models import Assay
pipeline = Pipeline.objects.get(pk={pipeline})
stats = {{"count": 900, "min": 0.0, "max": 0.002, "mean": 0.00052, "median": 0.0005, "deviation": 0.0001}}
print(Assay.objects.create(
    pipeline=pipeline, name="small shares", model="model", field="out.y[0]", baseline_start=0, baseline_end=3600_000,
    baseline_stats=stats, bin_mode="quantile", bin_edges=[0.0, 0.001, 0.002], aggregation="density",
    baseline_parts=[0.0, 0.5, 0.5, 0.0], metric="psi", warning=0.1, alert=0.25, min_records=1, width=3600,
    interval=3600, wait=0, next_start=4_000_000_000_000, created_by=User.objects.first(),
).pk)
"""
RESULTS = """
from drift.models import Assay, Result
for hour in range({first}, {last}):
    Result.objects.create(
        assay_id={pk}, start=hour * 3600_000, end=(hour + 1) * 3600_000, status="alert" if hour % 10 == 9 else "ok",
        score=0.3 if hour % 10 == 9 else 0.01, parts=[0.0, 0.4, 0.6, 0.0], stats={{"count": 60, "mean": 0.00054}},
    )
"""


@pytest.fixture
def site(center: RunningCenter) -> Site:
    return Site(center.api())


@pytest.fixture
def put(center: RunningCenter, site: Site) -> Callable[..., str]:
    """`put((bucket, reason), …)` puts the edges of a paused rollout there, first by first; its page's address.

    Its window is closed: else it might end before it is paused, because its edges never joined.
    """
    old, new = site.publish(weighted_sum(1.0)), site.publish(weighted_sum(2.0))
    for number in (1, 2, 3):
        site.api.post(f"publishes/{old['id']}/edges", {"name": f"{site.name}-{number}"})
    another_day = (datetime.now(UTC) + timedelta(days=3)).weekday()
    window = {"days": [DAYS[another_day]], "from": "00:00", "to": "12:00", "zone": "UTC"}
    made = site.api.post("rollouts", {"publish": new["id"], "replaces": [old["id"]], "window": window})
    site.api.post(f"rollouts/{made['id']}/pause")

    def put(*places: tuple[str, str]) -> str:
        in_center(center, MEMBERS.format(pk=made["id"], places=places))
        return f"/rollouts/{made['id']}"

    return put


@pytest.fixture
def scored(center: RunningCenter, site: Site) -> Callable[[int, int], str]:
    """`scored(first, last)` gives an assay results for these hours; the address of its page."""
    site.publish(weighted_sum(1.0))
    pk = int(in_center(center, ASSAY.format(pipeline=site.pipeline)))

    def scored(first: int, last: int) -> str:
        in_center(center, RESULTS.format(pk=pk, first=first, last=last))
        return f"/assays/{pk}"

    return scored


@pytest.fixture
def log(site: Site) -> Callable[[], str]:
    """`log()` logs a row for each of the last 30 minutes; the address of the charts of the last hour, live."""
    version, epoch = site.publish(weighted_sum(1.0))["uuid"], uuid.uuid4()
    logged = itertools.count(1, MINUTES)

    def log() -> str:
        now = int(time.time() * 1000)
        rows = [{"time": now - n * 60_000, "in": {"n": n}, "out": {"y": [n * n]}} for n in range(MINUTES)]
        query = f"source=job&epoch={epoch}&first={next(logged)}&pipeline_version={version}"
        site.api.post(f"pipelines/{site.pipeline}/logs?{query}", rows)
        return f"/pipelines/{site.pipeline}/logs/charts?period=1h&live=1"

    return log


def left_of(window: Page, column: str) -> float:
    box = window.locator(".members").get_by_role("columnheader", name=column).bounding_box()
    assert box
    return box["x"]


def test_rollout_keeps_the_focus_and_its_columns_while_edges_come_and_go(
    window: Page, site: Site, put: Callable[..., str]
) -> None:
    address = put(("failed", ""), ("failed", ""), ("waiting", ""))
    window.goto(f"{address}?bucket=failed")
    rows = window.locator(".members tbody tr")
    expect(rows).to_have_count(2)
    columns = ("Where it is", "Since", "Why")
    before = [left_of(window, column) for column in columns]
    second = rows.nth(1).get_by_role("link")
    name = second.inner_text()
    second.focus()
    put(("done", ""), ("failed", REASON), ("waiting", ""))
    expect(rows).to_have_count(1)
    expect(window.get_by_role("link", name=name, exact=True)).to_be_focused()
    expect(rows.first).to_contain_text("The golden request gave another answer")
    assert [left_of(window, column) for column in columns] == before

    waiting = window.get_by_role("link", name="Waiting 1")
    waiting.focus()
    put(("done", ""), ("failed", REASON), ("done", ""))
    expect(window.get_by_role("link", name="Done 2")).to_be_visible()
    expect(window.get_by_role("link", name="Waiting 0")).to_be_focused()


def test_rollout_of_which_somebody_looks_at_an_edge_tells_on_a_phone_what_there_is_to_tell(
    window: Page, put: Callable[..., str]
) -> None:
    window.set_viewport_size(PHONE)  # type: ignore[arg-type]
    window.goto(put(("failed", REASON), ("done", ""), ("waiting", "")))
    whys = window.locator(".members td[data-label=Why]")
    expect(whys).to_have_count(3)
    assert [why.is_visible() for why in whys.all()] == [True, False, False]
    assert window.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_assay_keeps_the_focus_and_the_charts_that_did_not_change(
    window: Page, scored: Callable[[int, int], str]
) -> None:
    window.goto(f"{scored(0, 12)}?window={5 * 3_600_000}&edge=")
    canvas = window.locator(".chart canvas")
    expect(canvas).to_have_count(2)
    expect(window.get_by_role("status")).to_contain_text("Newest window: No drift")
    expect(window.get_by_text("mean 0.00052, median 0.0005, deviation 0.0001")).to_be_visible()
    window.evaluate(
        "for (const one of document.querySelectorAll('.chart canvas')) one.id = `was-${one.closest('figure').id}`"
    )
    shown = window.locator("a[aria-current=true]", has_text="Bins")
    expect(shown).to_have_count(1)
    shown.focus()
    scored(12, 20)
    expect(window.locator(".windows tbody tr")).to_have_count(20)
    expect(window.get_by_role("status")).to_contain_text("Newest window: Alert")
    expect(shown).to_be_focused()
    expect(canvas).to_have_count(2)
    expect(window.locator("#was-chart-bins")).to_have_count(1)
    expect(window.locator("#was-chart-scores")).to_have_count(0)


def span_of(window: Page, chart: str) -> list[str]:
    """What stands at both ends of a chart, by its legend."""
    over, legend = window.locator(f"#{chart} .u-over"), window.locator(f"#{chart} .u-legend .u-value").first
    box = over.bounding_box()
    assert box
    found = []
    for x in (1, box["width"] - 2):
        over.hover(position={"x": x, "y": 9})
        expect(legend).to_have_text(re.compile("[0-9]"))
        found.append(legend.inner_text())
    return found


def brush(window: Page, chart: str) -> None:
    """Chooses the middle half of a chart, and leaves the mouse pressed."""
    over = window.locator(f"#{chart} .u-over")
    over.hover()  # scrolls there
    box = over.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    window.mouse.move(box["x"] + box["width"] / 4, middle)
    window.mouse.down()
    window.mouse.move(box["x"] + box["width"] * 3 / 4, middle, steps=4)


def test_live_charts_keep_the_focus_the_part_that_is_looked_at_and_where_it_is(
    window: Page, log: Callable[[], str]
) -> None:
    window.goto(log())
    rows = window.locator(".figures a").first
    expect(rows).to_have_text("30 rows")
    whole = {chart: span_of(window, chart) for chart in ("chart-requests", "chart-histogram")}
    parts = {}
    for chart in whole:
        brush(window, chart)
        window.mouse.up()
        parts[chart] = span_of(window, chart)
        assert whole[chart][0] != parts[chart][0] and whole[chart][1] != parts[chart][1]
    hidden = window.locator("#chart-latency .u-series.u-off")
    window.locator("#chart-latency .u-legend").get_by_text("p90").click()
    expect(hidden).to_contain_text("p90")
    rows.focus()
    log()
    expect(rows).to_have_text("60 rows")
    expect(rows).to_be_focused()

    values = window.locator("#chart-field summary")
    values.evaluate("(one) => { one.focus({ preventScroll: true }); one.scrollIntoView({ behavior: 'instant' }); }")
    place = values.bounding_box()
    log()
    expect(rows).to_have_text("90 rows")
    expect(values).to_be_focused()
    assert values.bounding_box() == place
    assert {chart: span_of(window, chart) for chart in parts} == parts
    expect(hidden).to_have_count(1)
    expect(hidden).to_contain_text("p90")

    window.locator("#chart-histogram .u-over").dblclick()
    assert span_of(window, "chart-histogram") == whole["chart-histogram"]


def test_live_charts_wait_while_a_part_of_one_is_selected(window: Page, log: Callable[[], str]) -> None:
    address = log()
    window.goto(address)
    rows = window.locator(".figures a").first
    expect(rows).to_have_text("30 rows")
    brush(window, "chart-requests")
    selected = window.locator("#chart-requests .u-select")
    width = selected.evaluate("(one) => one.style.width")
    log()
    wait_for("the rows to be summed up", lambda: "60</span> rows" in window.request.get(address).text())
    window.wait_for_timeout(LIVE + 2000)
    assert selected.evaluate("(one) => one.style.width") == width
    window.mouse.up()
    part = span_of(window, "chart-requests")
    expect(rows).to_have_text("60 rows")
    assert span_of(window, "chart-requests") == part


def test_windows_of_an_assay_are_paged_and_each_has_its_bins(window: Page, scored: Callable[[int, int], str]) -> None:
    window.goto(scored(0, 60))
    expect(window.get_by_text("Page 1 of 2, 60 in all")).to_be_visible()
    window.get_by_role("link", name="Next").click()
    expect(window.locator(".windows tbody tr")).to_have_count(10)
    window.get_by_role("link", name="Bins of the window from 1970-01-01 00:00").click()
    expect(window.get_by_text("beside the window from 1970-01-01 00:00")).to_be_visible()
    expect(window.get_by_text("Page 2 of 2, 60 in all")).to_be_visible()


def test_charts_grow_with_the_letters_of_a_large_screen(window: Page, scored: Callable[[int, int], str]) -> None:
    window.goto(scored(0, 12))
    wrap = window.locator(".chart .u-wrap").first
    expect(wrap).to_be_visible()
    small = wrap.bounding_box()
    window.set_viewport_size(WALL)  # type: ignore[arg-type]

    def grown() -> bool:
        large = wrap.bounding_box()
        return bool(small and large and large["height"] == 1.5 * small["height"])

    wait_for("the charts to be drawn for the large screen", grown)
    legend = window.locator(".chart .u-legend").first
    expect(legend).to_have_css("font-size", "19.5px")
    expect(legend).to_contain_text("alert0.25")


def wide_model() -> bytes:
    """A model whose `shares` are as many as the numbers that it takes."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDE]) for name in ("numbers", "shares")]
    node = helper.make_node("Softmax", ["numbers"], ["shares"])
    graph = helper.make_graph([node], "shares", sides[:1], sides[1:])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


@pytest.fixture
def answered(window: Page, site: Site) -> Page:
    """The answer to many rows of wide tensors."""
    name = "shares-of-each-class-by-softmax"
    uploaded = site.api.upload(site.workspace, name, wide_model())
    steps = [{"ModelInference": {"models": [{"name": name, "version": uploaded["version"]}]}}]
    version: Any = site.api.post(f"pipelines/{site.pipeline}/versions", {"steps": steps})
    window.goto(f"/pipeline-versions/{version['id']}/infer")
    window.get_by_label("Records").fill(json.dumps([{"numbers": [0.0] * WIDE}] * ROWS))
    window.get_by_role("button", name="Run").click()
    expect(window.get_by_role("heading", name="The answer")).to_be_visible(timeout=ANSWER)
    return window


def test_long_answer_is_led_to_and_nothing_of_it_is_cut(answered: Page) -> None:
    expect(answered.get_by_role("heading", name="The answer")).to_be_focused()
    expect(answered.get_by_role("heading", name="The answer")).to_be_in_viewport()
    expect(answered.get_by_text("120 rows")).to_contain_text("The first 100 are shown.")
    for size in (WALL, {"width": 1440, "height": 900}, PHONE):
        answered.set_viewport_size(size)  # type: ignore[arg-type]
        assert not answered.evaluate(CUT)
        assert answered.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    answered.get_by_text("As JSON").click()
    whole = answered.get_by_label("The answer as JSON")
    assert '"numbers": [0.0, 0.0, 0.0,' in whole.inner_text()
    expect(answered.get_by_text("only its beginning is shown")).to_be_visible()
    box = whole.bounding_box()
    assert box and box["height"] < PHONE["height"], "it scrolls by itself"


def test_axe_finds_nothing_in_motion(
    answered: Page,
    put: Callable[..., str],
    scored: Callable[[int, int], str],
    axe: str,  # noqa: F811
) -> None:
    answered.emulate_media(reduced_motion="reduce")
    answered.get_by_text("As JSON").click()
    found = {"the answer": complaints_in_both(answered, axe)}
    buckets = (
        [("failed", REASON), ("in_flight", ""), ("waiting", "")],
        [("reverting", REASON), ("reverted", ""), ("stuck", REASON)],
    )
    for places in buckets:
        answered.goto(put(*places))
        found[str(places)] = complaints_in_both(answered, axe)
    answered.goto(scored(0, 60))
    answered.locator("[data-chart-table] summary").first.click()
    found["the assay"] = complaints_in_both(answered, axe)
    assert not any(found.values()), found
