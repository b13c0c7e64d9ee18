"""Filters on rows that are in segments: the same rows as before, and groups that cannot hold any are not decoded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from django.utils import timezone

from catalog.models import User
from logs import compaction, export_jobs, exports, queries, rollups, segment_files
from logs.asked import Asked
from logs.columns import Selection
from logs.filters import Filters
from logs.models import LogPage, LogSegment
from logs.query import Order, Query
from tests.logs import rows
from tests.logs.conftest import Device
from tests.logs.test_export_logs import fetched

pytestmark = pytest.mark.django_db

COUNT = 400


@pytest.fixture
def compacted(make_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch, viewer: User) -> Device:
    """Two edges with 200 rows each, all in segments of small groups, and ten rows that are not yet."""
    monkeypatch.setattr(segment_files, "GROUP_ROWS", 20)
    even = make_device("shop-even")
    odd = make_device("depot-odd", even.version)
    old = rows.START
    for device, parity in ((even, 0), (odd, 1)):
        for number in range(4):
            names = [100 * number + 2 * row + parity for row in range(50)]
            outputs = {"price": pa.array([[float(name)] for name in names], pa.list_(pa.float32()))}
            body = device.page([old + name for name in names], names=names, outputs=outputs)
            assert device.ship(body, first=50 * number + 1).status_code == 200
    rollups.roll_up_waiting(timezone.now)
    compaction.compact(even.version.pipeline_id, timezone.now)
    assert LogSegment.objects.filter(removed_at=None).exists()
    assert not LogPage.objects.exists()
    names = range(COUNT, COUNT + 10)
    outputs = {"price": pa.array([[float(name)] for name in names], pa.list_(pa.float32()))}
    body = even.page([old + name for name in names], names=names, outputs=outputs)
    assert even.ship(body, first=201).status_code == 200
    return even


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The groups that were read."""
    found: list[int] = []
    whole = segment_files._ParquetReader.read

    def read(self: Any, group: int, query: Query | None = None) -> Any:
        found.append(group)
        return whole(self, group, query)

    monkeypatch.setattr(segment_files._ParquetReader, "read", read)
    return found


def ids(device: Device, viewer: User, filters: Filters, **changes: Any) -> list[int]:
    """All rows of a query, over as many answers as it takes."""
    found, query = [], queries.asked(filters, **changes)
    while True:
        answer = queries.read(viewer, device.version.pipeline_id, query)
        if len(answer.table):
            found += [row["id"] for row in answer.table["in"].to_pylist()]
        if answer.next is None:
            return found
        query = replace(query, cursor=answer.next)


@pytest.mark.parametrize(
    ("filters", "expected", "most"),
    [
        (Filters(), list(range(409, -1, -1)), 20),
        (Filters(conditions=("out.price > 395",)), [*range(409, 395, -1)], 1),
        (Filters(conditions=("out.price >= 100", "out.price < 103")), [102, 101, 100], 2),
        (Filters(conditions=("out.price = 7 or in.id = 300",)), [300, 7], 2),
        (Filters(conditions=("out.price > 1e6",)), [], 0),
        (Filters(edges=("depot-*",), conditions=("in.id < 6",)), [5, 3, 1], 1),
        (Filters(anomalies=("count",)), [], 0),
        (Filters(models=("house-*",), conditions=("in.id > 405",)), [409, 408, 407, 406], 1),
        (Filters(models=("other",)), [], 20),
    ],
)
@pytest.mark.parametrize("limit", [3, 100])
def test_the_same_rows_from_few_groups(
    compacted: Device, viewer: User, decoded: list[int], filters: Filters, expected: list[int], most: int, limit: int
) -> None:
    assert ids(compacted, viewer, filters, limit=limit) == expected
    assert len(set(decoded)) <= most
    assert ids(compacted, viewer, filters, limit=limit, order=Order.OLDEST_FIRST) == expected[::-1]


def test_groups_that_are_ruled_out_count_as_looked_at(compacted: Device, viewer: User, decoded: list[int]) -> None:
    query = replace(queries.asked(Filters(conditions=("in.id = 3",))), max_scanned_rows=5000)
    answers = []
    while True:
        answers.append(queries.read(viewer, compacted.version.pipeline_id, query))
        if answers[-1].next is None:
            break
        query = replace(query, cursor=answers[-1].next)
    assert len(answers) > 2
    assert [len(answer.table) for answer in answers].count(1) == 1
    assert len(decoded) <= 2


def test_only_columns_that_are_needed_are_decoded(compacted: Device, viewer: User, monkeypatch: Any) -> None:
    seen: list[set[str]] = []
    whole = segment_files._ParquetReader.read

    def read(self: Any, group: int, query: Query | None = None) -> Any:
        table = whole(self, group, query)
        seen.append({name for name in table.column_names if name not in segment_files.KEYS})
        return table

    monkeypatch.setattr(segment_files._ParquetReader, "read", read)
    filters = Filters(conditions=("out.price < 5",), edges=("shop-*",))
    query = queries.asked(filters, selection=Selection(dataset=("in.id",)))
    answer = queries.read(viewer, compacted.version.pipeline_id, query)
    assert answer.table.column_names == ["time", "in"]
    assert [row["id"] for row in answer.table["in"].to_pylist()] == [4, 2, 0]
    assert seen
    assert all(names == {"time", "in", "out", "metadata"} for names in seen)


def test_an_export_takes_rows_from_segments_and_pages(compacted: Device, viewer: User, api: Any) -> None:
    asked = Asked(Filters(conditions=("in.id >= 390",)), order=Order.OLDEST_FIRST)
    export = exports.create_export(
        actor=viewer,
        pipeline_pk=compacted.version.pipeline_id,
        format="parquet",
        asked=asked,
        data_size_limit=exports.DEFAULT_FILE,
    )
    assert export_jobs.export(str(export.pk))
    tables = fetched(api(viewer), str(export.pk))
    assert [row["id"] for table in tables for row in table["in"].to_pylist()] == list(range(390, 410))
