"""Files of segments: rows of several pages in the order of their keys, group by group."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from logs import segment_files
from logs.segment_order import Ordered

TIME = pa.timestamp("ms")


def page(number: int, times: list[int]) -> pa.Table:
    """A page with these times, whose other columns tell the row."""
    outs = pa.array([{"variable": [float(time), float(row)]} if row % 7 else None for row, time in enumerate(times)])
    names = pa.array([f"row {row} of {number}" for row in range(len(times))])
    table = pa.table({"time": pa.array(times, TIME), "out": outs, "name": names})
    return segment_files.with_keys(table, number, 1000 + number)


def written(parts: list[pa.Table], form: str) -> pa.Table:
    sink = io.BytesIO()
    segment_files.write(sink, Ordered(parts), form)
    reader = segment_files.opened(pa.BufferReader(sink.getvalue()), form)
    read = [reader.read(group.number) for group in reader.groups]
    for group, rows in zip(reader.groups, read, strict=True):
        times = rows.column("time").cast(pa.int64()).to_pylist()
        assert (group.rows, group.time_min, group.time_max) == (len(rows), times[0], times[-1])
    return pa.concat_tables(read).replace_schema_metadata(None)


def in_order(parts: list[pa.Table]) -> pa.Table:
    """By Arrow's own sort of the whole."""
    whole = pa.concat_tables(parts)
    keys = [("time", "ascending"), *((name, "ascending") for name in segment_files.KEYS[:2])]
    return whole.take(pc.sort_indices(whole, sort_keys=keys))


@pytest.mark.parametrize("form", [segment_files.PARQUET, segment_files.ARROW])
@pytest.mark.parametrize("length", [1, 7, 100, 20_000])
@pytest.mark.parametrize("kind", ["one after another", "at the same times", "in no order", "of one moment"])
def test_rows_are_those_of_the_pages_in_the_order_of_their_keys(
    monkeypatch: pytest.MonkeyPatch, form: str, length: int, kind: str
) -> None:
    monkeypatch.setattr(segment_files, "GROUP_ROWS", length)
    chance = np.random.default_rng(7)
    times = {
        "one after another": [list(range(at, at + 40)) for at in (80, 0, 40)],
        "at the same times": [list(range(0, 90, 3)) for _ in range(4)],
        "in no order": [chance.integers(0, 50, 60).tolist() for _ in range(3)],
        "of one moment": [[5] * 30, [5] * 3],
    }[kind]
    parts = [page(10 + number, some) for number, some in enumerate(times)]
    assert written(parts, form).equals(in_order(parts).combine_chunks())


def test_parquet_is_zstd_in_groups_of_20000_rows() -> None:
    sink = io.BytesIO()
    segment_files.write(sink, Ordered([page(1, list(range(45_000)))]), segment_files.PARQUET)
    told = pq.ParquetFile(sink).metadata
    groups = [told.row_group(number) for number in range(told.num_row_groups)]
    assert [group.num_rows for group in groups] == [20_000, 20_000, 5_000]
    assert {group.column(at).compression for group in groups for at in range(group.num_columns)} == {"ZSTD"}


def test_slices_give_their_own_rows_only() -> None:
    whole = page(1, list(range(100)))
    parts = [whole.slice(50, 10), whole.slice(10, 5)]
    assert written(parts, segment_files.PARQUET).equals(in_order(parts).combine_chunks())
