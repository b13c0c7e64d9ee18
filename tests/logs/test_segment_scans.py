"""Full scans find the same in segments as in pages."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from django.utils import timezone

from logs import compaction, exact, rollups, scans
from logs.exact import Question
from logs.filters import Filters
from logs.models import LogPage
from logs.scans import Scope
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db
PRICES = np.random.default_rng(7).lognormal(12, 0.4, 300)


def scope(device: Device, **filters: Any) -> Scope:
    return Scope(device.version.pipeline, rows.START, rows.START + 10_000_000, Filters(**filters))


def compact(device: Device) -> None:
    rollups.roll_up_waiting(timezone.now)
    assert compaction.compact(device.version.pipeline_id, timezone.now)
    assert not LogPage.objects.exists()


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"edges": ("houseprice-edge-01",)},
        {"edges": ("houseprice*",)},
        {"edges": ("nobody's",)},
        {"models": ("house-price",)},
        {"conditions": ("out.variable[0] > 160000",)},
    ],
)
def test_segments_give_the_same_as_pages(device: Device, filters: Any) -> None:
    shipper = Shipper(device)
    for number in range(3):
        shipper.run(rows.START + number * 50_000, 100, outputs=PRICES[number * 100 : number * 100 + 100])
    questions = [Question("out.variable[0]", by=("edge", "model")), Question("in.tensor[*]"), Question(step=60)]

    def answers() -> list[Any]:
        found = [one for question in questions for one in exact.summed(scope(device, **filters), question)]
        return [value for one in found for value in dataclasses.astuple(one)]

    before = answers()
    compact(device)
    after = answers()
    assert len(after) == len(before)
    for now, then in zip(after, before, strict=True):
        assert now == (pytest.approx(then) if isinstance(then, float) else then)  # rows are added in another order


def test_rows_of_a_version_and_of_a_part_of_the_time(device: Device) -> None:
    Shipper(device).run(rows.START, 100, outputs=PRICES[:100])
    compact(device)
    part = Scope(device.version.pipeline, rows.START + 10_000, rows.START + 20_000, Filters())
    assert exact.summed(part, Question())[0].rows == 10
    assert exact.summed(scope(device, pipeline_versions=(device.version.uuid,)), Question())[0].rows == 100


def test_names_that_differ_in_their_case_alone_are_not_mixed_up(device: Device) -> None:
    outputs = {"Price": pa.array([1.0, 2.0]), "price": pa.array([10.0, 20.0])}
    Shipper(device).ship(rows.table([rows.START, rows.START + 1], version=device.version.uuid, outputs=outputs))
    compact(device)
    assert [exact.summed(scope(device), Question(f"out.{name}"))[0].sum for name in outputs] == [3.0, 30.0]


def test_what_duckdb_reads_itself_is_not_copied(device: Device, monkeypatch: Any) -> None:
    Shipper(device).run(rows.START, 100)
    compact(device)

    def copied(*given: Any) -> None:
        raise AssertionError("rows were copied")

    monkeypatch.setattr(scans, "_insert", copied)
    with scans.scan(scope(device, edges=("houseprice-edge-01",)), ["out.variable[0]"]) as connection:
        assert connection.execute("SELECT count(*), sum(f0) FROM found").fetchone() == (100, 4950.0)
