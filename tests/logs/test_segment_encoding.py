"""Values that repeat get a dictionary in a segment's file, others do without; every reader reads both."""

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logs import segment_encoding, segment_files
from logs.segment_order import Ordered

COUNT = 3000
CHANCE = np.random.default_rng(11)
RANDOM = CHANCE.normal(size=2 * COUNT)
FEW = np.arange(2 * COUNT) % 7


def column(kind: Any, numbers: Any) -> pa.Array:
    """Numbers as a column of a type, two of them a row in lists."""
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([column(field.type, numbers) for field in kind], fields=list(kind))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.FixedSizeListArray.from_arrays(column(kind.value_type, numbers), len(numbers) // COUNT).cast(kind)
    if pa.types.is_string(kind):
        return pa.array([str(number) for number in numbers])
    return pa.array(numbers).cast(kind, safe=False)


def table(numbers: Any) -> pa.Table:
    """A page of every shape of leaf."""
    some = numbers[:COUNT]
    kinds = {
        "single": pa.float32(),
        "double": pa.float64(),
        "text": pa.string(),
        "inner": pa.struct({"x.y": pa.float32(), "deep": pa.struct({"z": pa.float64()})}),
    }
    outs = [column(kind, some) for kind in kinds.values()]
    listed = {"list": pa.list_(pa.float32()), "large": pa.large_list(pa.float64())}
    outs += [column(kind, numbers) for kind in listed.values()]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 2)
    structs = pa.array([[{"a": number}] for number in some], pa.list_(pa.struct({"a": pa.float64()})))
    made = pa.StructArray.from_arrays([*outs, fixed, structs], names=[*kinds, *listed, "fixed", "structs"])
    times = pa.array(np.arange(COUNT) // 10, pa.timestamp("ms"))
    return segment_files.with_keys(pa.table({"time": times, "out": made}), 1, 1000)


def written(page: pa.Table) -> bytes:
    sink = io.BytesIO()
    segment_files.write(sink, Ordered([page]), segment_files.PARQUET)
    return sink.getvalue()


def leaves(body: bytes) -> dict[str, bool]:
    """Each leaf of a file by its path, and whether it has a dictionary."""
    group = pq.ParquetFile(io.BytesIO(body)).metadata.row_group(0)
    found = [group.column(number) for number in range(group.num_columns)]
    return {leaf.path_in_schema: "RLE_DICTIONARY" in leaf.encodings for leaf in found}


def test_only_values_that_repeat_have_a_dictionary() -> None:
    for numbers, is_expected in ((FEW, True), (RANDOM, False)):
        found = leaves(written(table(numbers)))
        outs = {path: has for path, has in found.items() if path.startswith("out.")}
        assert set(outs.values()) == {is_expected}, outs
        assert len(outs) == 9
        assert found["time"] and found["_page"] and not found["_row"]


def test_the_paths_are_those_of_parquet() -> None:
    page = table(FEW)
    assert {*segment_encoding.with_dictionary(page), "_row"} == set(leaves(written(page)))


def test_no_encoding_that_old_readers_lack() -> None:
    group = pq.ParquetFile(io.BytesIO(written(table(RANDOM)))).metadata.row_group(0)
    encodings = {encoding for number in range(group.num_columns) for encoding in group.column(number).encodings}
    assert encodings <= {"PLAIN", "RLE", "RLE_DICTIONARY"}


def test_files_of_random_numbers_are_a_quarter_smaller() -> None:
    numbers = {f"f{number}": pa.array(CHANCE.normal(size=COUNT), pa.float32()) for number in range(9)}
    page = segment_files.with_keys(pa.table({"time": pa.array(range(COUNT), pa.timestamp("ms"))} | numbers), 1, 1000)
    plain = io.BytesIO()
    pq.write_table(page, plain, compression="zstd")
    assert len(written(page)) < 0.75 * len(plain.getvalue())


@pytest.mark.parametrize("numbers", [FEW, RANDOM], ids=["few", "random"])
def test_readers_read_what_was_written(tmp_path: Path, numbers: Any) -> None:
    page, file = table(numbers), tmp_path / "segment.parquet"
    file.write_bytes(written(page))
    expected = page.drop_columns(["_arrived"]).to_pylist()
    assert pq.read_table(file).drop_columns(["_arrived"]).to_pylist() == expected
    assert pl.read_parquet(file).drop("_arrived").to_dicts() == expected
    found = duckdb.sql(f"SELECT * EXCLUDE (_arrived) FROM read_parquet('{file}') ORDER BY _row")
    assert found.to_arrow_table().to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "is_expected"),
    [
        ([1.0, 2.0, 3.0], False),
        ([1.0, 1.0, 1.0], True),
        ([None, None, None, 1.0, 2.0], False),  # a null is no value
        ([None, None], True),
        ([float("nan")] * 4, True),
        ([], True),
    ],
)
def test_values_are_counted_once_and_nulls_not(values: list[float | None], is_expected: bool) -> None:
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        found = segment_encoding.with_dictionary(pa.table({"x": pa.array(values, kind)}))
        assert found == (["x"] if is_expected else [])


def test_few_of_many_values_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_encoding, "SAMPLE", 10)
    assert segment_encoding.with_dictionary(pa.table({"x": [0.0] * 10 + list(RANDOM)})) == ["x"]
