"""Outputs of shadow models are groups of their own, `out_<model>`, between `out` and `anomaly`."""

import pyarrow as pa
import pytest

from logs.columns import Selection

ROW = {
    "time": 1_700_000_000_000,
    "in": {"tensor": [1.0]},
    "out": {"y": [2.0]},
    "out_challenger": {"y": [3.0]},
    "anomaly": {"count": 0},
    "metadata": {"partition": "edge-1"},
}
TABLE = pa.Table.from_pylist([ROW])


def test_they_are_read_like_other_groups() -> None:
    assert Selection().apply(TABLE).column("out_challenger").to_pylist() == [{"y": [3.0]}]


@pytest.mark.parametrize("asked", [("out_challenger",), ("out_challenger.y",)])
def test_they_can_be_asked_for(asked: tuple[str, ...]) -> None:
    assert Selection(dataset=asked, is_flat=True).apply(TABLE).column_names == ["time", "out_challenger.y"]


def test_they_can_be_left_out() -> None:
    names = Selection(exclude=("out_challenger", "metadata"), is_flat=True).apply(TABLE).column_names
    assert names == ["time", "in.tensor", "out.y", "anomaly.count"]
