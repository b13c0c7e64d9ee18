"""Row groups that cannot hold rows of a filter are known by the file's own statistics, whoever wrote it."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logs.filters import Filters
from logs.statistics import bounds_of, may_hold
from tests.logs import rows


def table() -> pa.Table:
    """Four groups of ten rows: prices 0 to 9.9, 10 to 19.9, …; as lists, as numbers and as texts."""
    numbers = [float(number) + 0.1 for number in range(40)]
    outputs = {
        "prices": pa.array([[number] for number in numbers], pa.list_(pa.float32())),
        "nested": pa.array([[[number]] for number in numbers], pa.list_(pa.list_(pa.float64()))),
        "plain": pa.array(numbers, pa.float32()),
        "text": pa.array([f"{int(number) // 10}" for number in numbers]),
        "element": pa.array(numbers),
        "odd": pa.array([float("nan") if number > 30 else number for number in numbers]),
        "empty": pa.array([None] * 40, pa.float64()),
    }
    return rows.table(rows.run(40), outputs=outputs)


@pytest.fixture(params=["pyarrow", "polars"])
def described(request: pytest.FixtureRequest, tmp_path: Path) -> pq.FileMetaData:
    path = tmp_path / "segment.parquet"
    if request.param == "pyarrow":
        pq.write_table(table(), path, row_group_size=10)
    else:
        pl.DataFrame(table()).write_parquet(path, row_group_size=10, statistics="full")
    return pq.read_metadata(path)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("out.prices > 25", {2, 3}),
        ("out.prices = 0.1", {0}),
        ("out.nested < 5", {0}),
        ("out.plain >= 10.1 and out.plain < 20", {1}),
        ("out.text = '2'", {2}),
        ("out.prices[0] > 35", {3}),
        ("out.prices > 25 or out.plain < 5", {0, 2, 3}),
        ("in.id = 15", {1}),  # rows.table numbers its rows
        ("out.missing > 5", {0, 1, 2, 3}),
        ("out.element > 35", {0, 1, 2, 3}),  # a name that lists use too: nothing is ruled out
        ("not out.prices > 5", {0, 1, 2, 3}),
        ("metadata.partition = 'elsewhere'", set()),
        ("anomaly.count > 0", set()),
    ],
)
def test_groups_are_ruled_out(described: pq.FileMetaData, text: str, groups: set[int]) -> None:
    filters = Filters(conditions=(text,))
    found = {group for group in range(4) if may_hold(described, group, filters)}
    assert found == groups
    # What is ruled out holds no row indeed.
    mask = filters.mask(table())
    assert not [row for row in mask.nonzero()[0] if int(row) // 10 not in found]


def test_columns_without_values_say_nothing(described: pq.FileMetaData) -> None:
    assert bounds_of(described, 0)(("out", "empty")) is None
    assert bounds_of(described, 0)(("out", "missing")) is None
    assert may_hold(described, 3, Filters(anomalies=("too_high",)))
