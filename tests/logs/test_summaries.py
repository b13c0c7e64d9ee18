"""What a summary holds of rows, whatever shape their values have."""

import json

import numpy as np
import pyarrow as pa
import pytest

from logs import summaries
from tests.logs import rows


def summary_of(**changes: object) -> summaries.Summary:
    table = rows.table([rows.START] * 4, **changes)  # type: ignore[arg-type]
    [found] = summaries.of_table(table, pa.array(["edge"] * 4)).values()
    return found


def test_every_numeric_shape() -> None:
    given = {
        "flag": pa.array([True, False, None, True]),
        "half": pa.array(np.array([1, 2, 3, 4], dtype=np.float16)),
        "box": pa.array([{"w": 1, "h": 2.5}, None, {"w": 3, "h": None}, {"w": 5, "h": 4.5}]),
        "pair": pa.array([[1, 2], [3, 4], [5, 6], None], pa.list_(pa.int32(), 2)),
        "deep": pa.array([[[1.0], [2.0, 3.0]], [], None, [[4.0]]], pa.list_(pa.list_(pa.float64()))),
        "long": pa.array([list(range(1000))] * 4, pa.list_(pa.int64())),
        "text": pa.array(["a", "b", "c", "d"]),
        "things": pa.array([[{"x": 1}]] * 4),
        "nothing": pa.array([None] * 4, pa.null()),
    }
    fields = summary_of(inputs=given, outputs={}).fields
    means = {name: (sketch.count, sketch.nulls, sketch.mean) for name, sketch in fields.items()}
    pooled = np.arange(0, 1000, 4)
    assert means == {
        "in.flag": (3, 1, pytest.approx(2 / 3)),
        "in.half": (4, 0, 2.5),
        "in.box.w": (3, 1, 3.0),
        "in.box.h": (2, 2, 3.5),
        "in.pair[0]": (3, 0, 3.0),
        "in.pair[1]": (3, 0, 4.0),
        "in.deep[0]": (2, 0, 2.5),
        "in.deep[1]": (1, 0, 2.0),
        "in.deep[2]": (1, 0, 3.0),
        "in.long[*]": (4 * len(pooled), 0, pooled.mean()),
    }


def test_what_lies_below_a_null_does_not_count() -> None:
    """Arrow may keep elements of a list that is null."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4, 5]), pa.array([1.0, 50.0, 60.0, 2.0, 3.0]), mask=pa.array([False, True, False, False])
    )
    assert summary_of(inputs={"x": lists}, outputs={}).fields["in.x[0]"].mean == 2.0


def test_outputs_are_kept_when_there_are_too_many_fields() -> None:
    inputs = {f"x{number:03}": pa.array([1.0] * 4) for number in range(100)}
    fields = summary_of(inputs=inputs, outputs={"y": pa.array([2.0] * 4)}).fields
    assert len(fields) == summaries.MAX_FIELDS
    assert next(iter(fields)) == "out.y"


def test_fields_are_ordered_as_people_count() -> None:
    names = ["in.a", "in.t[10]", "out.z", "in.t[2]", "out_shadow.y", "in.t[*]"]
    assert sorted(names, key=summaries.field_order) == [
        "out.z", "out_shadow.y", "in.a", "in.t[*]", "in.t[2]", "in.t[10]",
    ]  # fmt: skip


def test_whatever_an_engine_writes_as_its_model_is_survived() -> None:
    table = rows.table([rows.START] * 4)
    told = ['{"model_name": 5, "model_sha": null}', "[]", "no json", json.dumps({"model_name": "m", "model_sha": "s"})]
    metadata = table.column("metadata").to_pylist()
    for row, text in zip(metadata, told, strict=True):
        row["last_model"] = text
    at = table.schema.get_field_index("metadata")
    table = table.set_column(at, "metadata", pa.array(metadata, rows.METADATA))
    found = summaries.of_table(table, pa.array(["edge"] * 4))
    assert {(key.model, key.sha): one.rows for key, one in found.items()} == {
        ("5", "None"): 1, ("", ""): 2, ("m", "s"): 1,
    }  # fmt: skip
