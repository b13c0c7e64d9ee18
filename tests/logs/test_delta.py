"""The Delta tables of segments hold every row once, for readers that know nothing of us."""

import posixpath
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from django.utils import timezone

from logs import compaction, delta, queries, rollups, segment_files, tasks
from logs.models import LogSegment
from logs.query import Order, Query
from tests.logs import rows
from tests.logs.busy import Shipper
from tests.logs.conftest import Device

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(settings: Any) -> Path:
    """Where segments are."""
    return Path(settings.LOGS_URL)


def compact(device: Device) -> None:
    rollups.roll_up_waiting(timezone.now)
    assert compaction.compact(device.version.pipeline_id, timezone.now)


def outputs(table: pa.Table) -> list[float]:
    return sorted(row["variable"][0] for row in table.column("out").to_pylist())


def test_nothing_is_published_unless_it_is_switched_on(device: Device, folder: Path) -> None:
    Shipper(device).run(rows.START, 5)
    compact(device)
    assert tasks.publish_delta() == 0
    assert not list(folder.rglob("_delta_log"))


def test_polars_duckdb_and_delta_rs_read_every_row(device: Device, folder: Path, settings: Any) -> None:
    settings.LOGS_DELTA = True
    shipper = Shipper(device)
    for number in range(3):
        shipper.run(rows.START + number * 500, 100, outputs=[100 * number + n for n in range(100)])
        compact(device)
    assert tasks.publish_delta() == 1
    place = str(folder / posixpath.dirname(LogSegment.objects.all()[0].path))
    expected = [float(n) for n in range(300)]
    assert outputs(pl.read_delta(place).to_arrow()) == expected
    dataset = DeltaTable(place).to_pyarrow_dataset()
    assert outputs(dataset.to_table()) == expected
    [found] = duckdb.sql("SELECT count(*), min(time), max(metadata.partition) FROM dataset").fetchall()
    assert (found[0], found[2]) == (300, device.edge.name)
    times = pl.read_delta(place)["time"].to_list()
    assert min(times) == found[1]


def test_readers_find_row_for_row_what_the_center_answers(device: Device, folder: Path) -> None:
    names = range(100, 160)
    inputs = {"id": pa.array(names, pa.int64()), "x": pa.array([0.1 * n for n in names], pa.float32())}
    outputs = {"variable": pa.array([[n / 3, 1e300] if n % 7 else None for n in names], pa.list_(pa.float64()))}
    times = [rows.START + 37 * n % 101 for n in range(60)]  # in no order
    Shipper(device).ship(rows.table(times, version=device.version.uuid, inputs=inputs, outputs=outputs))
    query = Query(order=Order.OLDEST_FIRST, limit=1000)
    [batch] = queries.walk(device.version.pipeline, query)
    expected = batch.tables[0].to_pylist()
    compact(device)
    assert delta.publish() == 1
    place = str(folder / posixpath.dirname(LogSegment.objects.get().path))
    keys = list(segment_files.KEYS)
    assert pl.read_delta(place).sort("time", *keys[:2]).drop(keys).to_dicts() == expected
    dataset = DeltaTable(place).to_pyarrow_dataset()
    for source in ("dataset", f"read_parquet({DeltaTable(place).file_uris()})"):
        found = duckdb.sql(f"SELECT * EXCLUDE (_page, _row, _arrived) FROM {source} ORDER BY time, _page, _row")
        assert found.to_arrow_table().to_pylist() == expected
    assert len(dataset.to_table()) == len(expected) == 60


def test_what_is_merged_or_expired_is_replaced_in_the_table(device: Device, folder: Path) -> None:
    shipper = Shipper(device)
    for number in range(compaction.ALIKE - 1):
        shipper.run(rows.START + number * 5000, 10, outputs=[10 * number + n for n in range(10)])
        compact(device)
    assert delta.publish() == 1 and delta.publish() == 0
    place = str(folder / posixpath.dirname(LogSegment.objects.all()[0].path))
    assert len(DeltaTable(place).file_uris()) == compaction.ALIKE - 1
    shipper.run(rows.START + 100_000, 10, outputs=range(500, 510))
    compact(device)
    assert delta.publish() == 1
    assert len(DeltaTable(place).file_uris()) == 1
    assert outputs(pl.read_delta(place).to_arrow())[-10:] == [float(n) for n in range(500, 510)]
    assert len(pl.read_delta(place)) == 10 * compaction.ALIKE
    LogSegment.objects.update(removed_at=timezone.now())
    assert delta.publish() == 1
    assert len(pl.read_delta(place)) == 0


def test_types_that_delta_has_no_word_for_make_no_table(device: Device, folder: Path) -> None:
    made = {"count": pa.array([2**63 + 1], pa.uint64())}
    Shipper(device).ship(rows.table([rows.START], version=device.version.uuid, outputs=made))
    compact(device)
    assert delta.publish() == 0
    assert not list(folder.rglob("_delta_log"))


def test_each_schema_has_a_table(device: Device, folder: Path) -> None:
    shipper = Shipper(device)
    shipper.run(rows.START, 5)
    shipper.ship(rows.table([rows.START], version=device.version.uuid, outputs={"variable": pa.array(["text"])}))
    compact(device)
    assert delta.publish() == 2
    sizes = sorted(len(pl.read_delta(str(log.parent))) for log in folder.rglob("_delta_log"))
    assert sizes == [1, 5]
