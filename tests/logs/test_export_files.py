"""Files that exports are written to: bounded, whole, readable by what people have."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logs.export_files import Files, path_of
from tests.logs import rows

LIMIT = 1024**2


def table(count: int, begin: int = 0) -> pa.Table:
    """Rows whose values cannot be compressed."""
    random = np.random.default_rng(begin)
    values = pa.FixedSizeListArray.from_arrays(pa.array(random.random(16 * count)), 16).cast(pa.list_(pa.float64()))
    return rows.table(rows.run(count, rows.START + begin), names=range(begin, begin + count), outputs={"v": values})


def read(path: Path) -> pa.Table:
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path).read_all()
    return pq.read_table(path)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_rows_are_cut_into_files_below_the_limit(tmp_path: Path, kind: str) -> None:
    whole = pa.concat_tables([table(5000, 5000 * part) for part in range(8)])
    files = Files(tmp_path, kind, LIMIT)
    for begin in range(0, len(whole), 7000):
        files.write(whole.slice(begin, 7000))
    finished = files.finish()
    assert len(finished) >= 5
    assert [file.number for file in finished] == list(range(1, len(finished) + 1))
    paths = [path_of(tmp_path, file.number, kind) for file in finished]
    assert sorted(tmp_path.iterdir()) == paths
    assert all(path.stat().st_size == file.size <= LIMIT for path, file in zip(paths, finished, strict=True))
    assert all(file.size > LIMIT / 2 for file in finished[:-1])
    found = pa.concat_tables([read(path) for path in paths])
    assert [len(read(path)) for path in paths] == [file.rows for file in finished]
    assert found.cast(whole.schema).equals(whole.combine_chunks())


def test_json_files_are_lists_that_pandas_reads(tmp_path: Path) -> None:
    whole = table(6000)
    files = Files(tmp_path, "json", LIMIT)
    files.write(whole)
    finished = files.finish()
    assert len(finished) > 2
    assert all(file.size <= LIMIT for file in finished)
    paths = [path_of(tmp_path, file.number, "json") for file in finished]
    frames = [pd.read_json(path, orient="records", precise_float=True) for path in paths]
    assert [len(frame) for frame in frames] == [file.rows for file in finished]
    found = pd.concat(frames, ignore_index=True)
    assert [one["id"] for one in found["in"]] == list(range(6000))
    values = whole["out"].combine_chunks().field("v").to_pylist()
    assert np.allclose(np.array([one["v"] for one in found["out"]]), np.array(values), rtol=1e-15, atol=0)
    assert found["time"].iloc[5999] == rows.START + 5999


def test_json_stays_valid_with_what_json_does_not_have(tmp_path: Path) -> None:
    odd = {"v": pa.array([float("nan"), float("inf"), 0.1, None])}
    files = Files(tmp_path, "json", LIMIT)
    files.write(rows.table(rows.run(4), outputs=odd))
    files.write(rows.table(rows.run(0), outputs={"v": pa.array([], pa.float64())}))
    (finished,) = files.finish()
    text = path_of(tmp_path, 1, "json").read_text()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(text, parse_constant=refuse)
    assert [row["out"]["v"] for row in found] == [None, None, 0.1, None]
    assert finished.rows == 4


def test_each_schema_has_its_own_file(tmp_path: Path) -> None:
    files = Files(tmp_path, "arrow", LIMIT)
    for begin in range(0, 100, 10):
        kind = pa.float32() if begin % 20 else pa.float64()
        files.write(rows.table(rows.run(10, begin), outputs={"v": pa.array([0.1] * 10, kind)}))
    assert not files.is_due
    assert [(file.number, file.rows) for file in files.finish()] == [(1, 50), (2, 50)]
    kinds = [read(path_of(tmp_path, number, "arrow")).schema.field("out").type.field("v").type for number in (1, 2)]
    assert kinds == [pa.float64(), pa.float32()]


def test_one_row_that_is_larger_than_a_file_is_a_file(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    wide = pa.array([random.random(300_000).tolist()] * 2, pa.list_(pa.float64()))
    files = Files(tmp_path, "arrow", LIMIT)
    files.write(rows.table(rows.run(2), outputs={"v": wide}))
    assert [file.rows for file in files.finish()] == [1, 1]


def test_what_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    for kind in ("arrow", "parquet", "json"):
        files = Files(tmp_path, kind, LIMIT)
        files.write(table(10))
        files.discard()
    assert list(tmp_path.iterdir()) == []


def test_flat_rows_are_read_by_polars(tmp_path: Path) -> None:
    files = Files(tmp_path, "parquet", LIMIT)
    files.write(pa.table({"time": table(3)["time"], "in.id": pa.array([1, 2, 3])}))
    files.finish()
    assert pl.read_parquet(path_of(tmp_path, 1, "parquet"))["in.id"].to_list() == [1, 2, 3]
