"""The data plane: inputs in, answers out, and what is refused with the column's name."""

import io

import numpy as np
import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW, JSON
from engine.tests.fakes import models
from engine.tests.fakes.models import DOUBLE, INT64
from opsengine import selection
from opsengine.errors import PipelineError, RequestError
from opsengine.plane import DataPlane

BY_TWO = ("by-two", "m1", models.scale(2.0), ["tensor"])
TWO = [{"tensor": [1.0, 2.0]}, {"tensor": [3.5, 4]}]


def refusal(infer, records, *parts, **more):
    with pytest.raises(RequestError) as caught:
        infer(records, *parts, **more)
    return caught.value


def arrow_file(table, make=pa.ipc.new_file, **options):
    sink = io.BytesIO()
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def test_record_carries_both_documented_shapes(infer):
    first, second = infer(TWO, BY_TWO)
    assert set(first) == {
        *("time", "in", "out", "anomaly", "metadata", "check_failures", "elapsed", "model_name", "model_version"),
        *("original_data", "outputs", "pipeline_name", "shadow_data"),
    }
    assert isinstance(first["time"], int) and first["time"] > 1_700_000_000_000
    assert (first["in"], first["out"]) == ({"tensor": [1.0, 2.0]}, {"y": [2.0, 4.0]})
    assert second["out"] == {"y": [7.0, 8.0]}
    assert first["anomaly"] == {"count": 0}
    meta = first["metadata"]
    assert orjson.loads(meta["last_model"]).keys() == {"model_name", "model_sha"}
    assert meta["pipeline_version"] == "3b49fba8-94d8-4fca-aecc-c75257fd16c6"
    assert meta["elapsed"] == first["elapsed"] and len(meta["elapsed"]) == 2 and min(meta["elapsed"]) > 0
    assert (meta["dropped"], meta["partition"]) == ([], "edge-1")
    assert (first["check_failures"], first["shadow_data"], first["pipeline_name"]) == ([], {}, "small")
    assert (first["model_name"], first["model_version"]) == ("by-two", "m1")
    assert first["original_data"] == {"tensor": [1.0, 2.0]}
    assert first["outputs"] == [{"Float": {"data": [2.0, 4.0], "dim": [1, 2], "v": 1}}]


@pytest.mark.parametrize(
    ("model", "answer"),
    [("rf", b"[718013.7]"), ("xgb", b"[659806.0]"), ("gbr", b"[704901.9]")],
)
def test_house_prices_are_the_known_ones(load_pipeline, data, model, answer):
    plane = DataPlane(lambda _: None, 2**26)
    plane.swap(load_pipeline((model, "m1", (data / "houseprice" / f"{model}_model.onnx").read_bytes(), ["tensor"])))
    as_json = plane.infer((data / "houseprice" / "xtest-1k.df.json").read_bytes(), JSON, as_arrow=False)
    as_arrow = plane.infer((data / "houseprice" / "xtest-1k.arrow").read_bytes(), ARROW, as_arrow=False)
    for text in (as_json, as_arrow):
        assert text.split(b'"out":{"variable":')[1].startswith(answer)
        assert len(orjson.loads(text)) == 1000
    assert [row["out"] for row in orjson.loads(as_json)] == [row["out"] for row in orjson.loads(as_arrow)]


def test_frauds_are_found_in_json_and_arrow_alike(load_pipeline, data):
    plane = DataPlane(lambda _: None, 2**26)
    plane.swap(load_pipeline(("ccfraud", "m1", (data / "ccfraud" / "ccfraud.onnx").read_bytes(), ["tensor"])))
    answers = []
    for name, kind in (("cc_data_1k.df.json", JSON), ("cc_data_1k.arrow", ARROW)):
        rows = orjson.loads(plane.infer((data / "ccfraud" / name).read_bytes(), kind, as_arrow=False))
        answers.append([row["out"]["dense_1"][0] for row in rows])
    assert len(answers[0]) == 1001
    assert answers[0][0] == pytest.approx(0.99300325)
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


@pytest.mark.parametrize("shape", [(784,), (1, 28, 28), (28, 28)])
def test_fixed_batch_of_one_runs_row_by_row(infer, data, shape):
    model = ("mnist", "m1", (data / "mnist" / "mnist.onnx").read_bytes(), None)
    images = [np.full(shape, brightness).tolist() for brightness in (0.0, 0.5, 1.0)]
    rows = infer([{"image": image} for image in images], model)
    alone = [infer([{"image": image}], model)[0] for image in images]
    assert [row["out"] for row in rows] == [row["out"] for row in alone]
    assert rows[0]["out"] != rows[2]["out"]
    assert rows[0]["in"]["image"] == images[0]


def test_image_with_its_axes_in_another_order_is_refused(infer, data):
    model = ("mnist", "m1", (data / "mnist" / "mnist.onnx").read_bytes(), None)
    said = refusal(infer, [{"image": np.zeros((14, 56)).tolist()}], model)
    assert (said.status, str(said)) == (400, 'Column "image" has rows of shape 14x56, but the model takes 1x28x28.')


def test_fixed_batch_of_three_takes_multiples_of_three(infer):
    model = ("threes", "m1", models.scale(2.0, batch=3), None)
    assert [row["out"]["y"][0] for row in infer([{"x": [n, 0]} for n in range(6)], model)] == [0, 2, 4, 6, 8, 10]
    assert "multiple of 3" in str(refusal(infer, TWO, model))


def test_steps_are_chained(infer):
    more = ("by-five", "m2", models.scale(5.0, source="in", result="z"), ["tensor"])
    (row,) = infer(TWO[:1], BY_TWO, more)
    assert row["out"] == {"z": [10.0, 20.0]}
    assert (row["model_name"], len(row["elapsed"])) == ("by-five", 3)


def test_columns_by_tensor_fields_order(infer):
    (row,) = infer([{"v": 2.0, "u": [1.0]}], ("add", "m1", models.add_two(), ["u", "v"]))
    assert row["out"] == {"sum": [3.0]}
    assert row["in"] == {"v": 2.0, "u": [1.0]}


def test_columns_by_name_and_unused_ones_are_kept(infer):
    (row,) = infer([{"b": 2, "id": "x-1", "a": 1, "tags": [1, None]}], ("add", "m1", models.add_two(), None))
    assert row["out"] == {"sum": [3.0]}
    assert row["in"] == {"b": 2.0, "id": "x-1", "a": 1.0, "tags": [1, None]}


def test_single_column_by_position(infer):
    (row,) = infer([{"anything": [1.0, 2.0]}], ("by-two", "m1", models.scale(2.0), None))
    assert row["out"] == {"y": [2.0, 4.0]}


def test_several_outputs_of_several_types(infer):
    (row,) = infer([{"x": [0.25, 0.5, 0.125]}], ("which", "m1", models.class_and_scores(), None))
    assert row["out"] == {"label": 1, "scores": [0.25, 0.5, 0.125]}
    assert row["outputs"] == [
        {"Int64": {"data": [1], "dim": [1], "v": 1}},
        {"Float": {"data": [0.25, 0.5, 0.125], "dim": [1, 3], "v": 1}},
    ]


def test_text_in_and_out(infer):
    rows = infer([{"word": "héllo"}, {"word": '"%s'}], ("echo", "m1", models.echo_text(), None))
    assert [row["out"] for row in rows] == [{"said": "héllo"}, {"said": '"%s'}]
    assert rows[0]["outputs"] == [{"String": {"data": ["héllo"], "dim": [1], "v": 1}}]


def test_rows_of_several_texts_are_flat_in_outputs(infer):
    rows = infer([{"word": [["a", "b"]] * 3}, {"word": [["c", "d"]] * 3}], ("echo", "m1", models.echo_text(3, 2), None))
    sent = (["a", "b"], ["c", "d"])
    assert [row["out"]["said"] for row in rows] == [[texts] * 3 for texts in sent]
    assert [row["outputs"] for row in rows] == [
        [{"String": {"data": texts * 3, "dim": [1, 3, 2], "v": 1}}] for texts in sent
    ]


def test_whole_and_long_numbers_fit_where_nothing_is_lost(infer):
    whole = ("whole", "m1", models.scale(3, kind=INT64), None)
    assert infer([{"x": [2.0, 5]}], whole)[0]["out"] == {"y": [6, 15]}
    assert "fractions" in str(refusal(infer, [{"x": [2.5, 5]}], whole))
    assert "out of the range" in str(refusal(infer, [{"x": [1e30, 5]}], whole))
    exact = ("exact", "m1", models.scale(1.0, kind=DOUBLE), None)
    assert infer([{"x": [0.1, 47.6952018738]}], exact)[0]["out"] == {"y": [0.1, 47.6952018738]}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"tensor": [1.0, "2"]}], 'Column "tensor" holds text'),
        ([{"tensor": [1.0, None]}], 'Column "tensor" has an empty value'),
        ([{"tensor": None}], 'Column "tensor" has an empty value'),
        ([{"tensor": [1.0, 2.0]}, {"tensor": [1.0]}], 'Column "tensor" is ragged'),
        ([{"tensor": [1.0, 2.0, 3.0]}], 'Column "tensor" has rows of shape 3, but the model takes 2'),
        ([{"tensor": []}], 'Column "tensor" has rows of shape 0'),
        ([{"tensor": {"a": 1}}], 'Column "tensor" does not hold numbers'),
        ([{"tensor": [1e300, 1.0]}], 'Column "tensor" has a number too large'),
        ([{"tensr": [1.0, 2.0]}], "Column \"tensor\" is missing: model by-two needs it (got 'tensr')"),
        ([{"tensor": [1.0, 2.0]}, {}], 'Column "tensor" is missing in row 1'),
        ([{"tensor": [1.0, 2.0]}, {"tensor": [1.0, 2.0], "x": 1}], 'Column "x" of row 1 is missing in row 0'),
        ([{"tensor": [1.0, 2.0]}, 7], "missing in row 1"),
        ([], "no rows"),
        ([{}], "no columns"),
        ({"tensor": [[1.0, 2.0]]}, "list of records"),
        (b"[{", "not valid JSON"),
        (b'[{"tensor": [NaN, 1]}]', "not valid JSON"),
        (b"", "no body"),
    ],
)
def test_wrong_input_is_a_400_that_names_it(infer, records, said):
    error = refusal(infer, records, BY_TWO)
    assert error.status == 400
    assert said in str(error)
    assert infer.logged == []


@pytest.mark.parametrize("kind", ["text/csv", "application/x-www-form-urlencoded", "application/json2"])
def test_unknown_content_type_is_415(infer, kind):
    assert refusal(infer, TWO, BY_TWO, kind=kind).status == 415


@pytest.mark.parametrize(
    "kind",
    ["", "APPLICATION/JSON", "Content-Type: application/json; format=pandas-records", "content-type:application/json"],
)
def test_content_types_are_read_leniently(infer, kind):
    assert len(infer(TWO, BY_TWO, kind=kind)) == 2


@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.int32())])
def test_arrow_of_any_common_form(infer, make, compression, kind):
    table = pa.table({"tensor": pa.array([[1, 2], [3, 4], [5, 6]], type=kind)})
    rows = infer(arrow_file(table, make, compression=compression), BY_TWO, kind=ARROW)
    assert [row["out"]["y"] for row in rows] == [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), 'Column "tensor" is ragged'),
        (pa.array([[1.0, 2.0], None]), 'Column "tensor"'),
        (pa.array([[1.0, None], [1.0, 2.0]]), 'Column "tensor" has an empty value'),
        (pa.array(["a", "b"]), 'Column "tensor" holds text'),
        (pa.array([1.0, 2.0]), "a single number"),
    ],
)
def test_wrong_arrow_column_is_a_400_that_names_it(infer, column, said):
    error = refusal(infer, arrow_file(pa.table({"tensor": column})), BY_TWO, kind=ARROW)
    assert error.status == 400
    assert said in str(error)


def test_broken_arrow_is_a_400(infer):
    whole = arrow_file(pa.table({"tensor": pa.array([[1.0, 2.0]])}))
    for body in (b"ARROW1\0\0nonsense", whole[:40], whole[:200], b"nonsense"):
        assert refusal(infer, body, BY_TWO, kind=ARROW).status == 400


def test_arrow_that_unpacks_too_large_is_a_413(infer):
    bomb = pa.table({"tensor": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * 10_000_000, np.float32)), 2)})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, bomb.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(bomb)
    assert len(sink.getvalue()) < 2**20
    assert refusal(infer, sink.getvalue(), BY_TWO, kind=ARROW).status == 413


def answer_table(load_pipeline, query=""):
    plane = DataPlane(lambda _: None, 2**26)
    plane.swap(load_pipeline(BY_TWO))
    answer = plane.infer(orjson.dumps(TWO), JSON, as_arrow=True, selection=selection.parse(query))
    return pa.ipc.open_file(answer).read_all()


def test_arrow_answer_is_in_the_shape_of_the_log(load_pipeline):
    table = answer_table(load_pipeline)
    assert table.column_names == ["time", "in", "out", "anomaly", "metadata"]
    assert table.schema.field("time").type == pa.timestamp("ms")
    assert table.schema.field("out").type == pa.struct({"y": pa.list_(pa.float32())})
    assert table.schema.field("anomaly").type == pa.struct({"count": pa.int32()})
    assert [row["out"] for row in table.to_pylist()] == [{"y": [2.0, 4.0]}, {"y": [7.0, 8.0]}]


def test_arrow_answer_is_flat_when_columns_are_asked_for(load_pipeline):
    table = answer_table(load_pipeline, "dataset%5B%5D=%2A&dataset.exclude%5B%5D=metadata&dataset.separator=.")
    assert table.column_names == ["time", "in.tensor", "out.y", "anomaly.count"]
    assert table.column("out.y").to_pylist() == [[2.0, 4.0], [7.0, 8.0]]


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("dataset[]=out", {"time", "out.y"}),
        ("dataset[]=out.y&dataset[]=metadata.partition", {"time", "out.y", "metadata.partition"}),
        ("dataset[]=*&dataset.exclude[]=metadata&dataset.exclude[]=in.tensor", {"time", "out.y", "anomaly.count"}),
        ("dataset[]=out&dataset[]=anomaly.count&dataset.exclude[]=anomaly", {"time", "out.y", "anomaly.count"}),
        ("dataset[]=out&dataset.separator=_", {"time", "out_y"}),
        ("dataset[]=nothing", {"time"}),
    ],
)
def test_query_narrows_the_answer(infer, query, columns):
    rows = infer(TWO, BY_TWO, query=query)
    assert [set(row) for row in rows] == [columns] * 2


@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.parametrize("beside", [{}, {"n": 3}, {"n": 0.1, "note": [None, "a"]}])
def test_answer_in_json_tells_inputs_as_they_were_sent_and_the_log_what_the_model_saw(infer, count, beside):
    records = [{"tensor": [0.1234567890123, row], **beside} for row in range(count)]
    answers = infer(records, BY_TWO)
    assert [answer["in"] for answer in answers] == [answer["original_data"] for answer in answers] == records
    assert [list(answer["in"]) for answer in answers] == [list(record) for record in records]
    flat = infer(records, BY_TWO, query="dataset[]=in.tensor")
    assert [answer["in.tensor"] for answer in flat] == [record["tensor"] for record in records]
    assert infer.logged[0].inputs["tensor"].dtype == np.float32
    table = pa.table({"tensor": pa.array([record["tensor"] for record in records], pa.list_(pa.float32()))})
    (first, *_) = infer(arrow_file(table), BY_TWO, kind=ARROW)
    assert first["in"] == {"tensor": [0.12345679, 0.0]}


def test_what_is_logged_is_what_was_answered(infer):
    rows = infer(TWO, BY_TWO)
    (result,) = infer.logged
    assert (result.count, result.time) == (2, rows[0]["time"])
    assert result.outputs["y"].tolist() == [row["out"]["y"] for row in rows]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": [{"AuditResults": {"from": 1, "to": 2}}]}, "AuditResults and has no model step before it"),
        ({"steps": [{"ModelInference": {"models": [{"version": "m1"}]}}]}, 'by "name" and "version"'),
        ({"steps": []}, None),
        ({"format": 2}, "update the engine"),
        ({"engine": {"minimum": "9.0"}}, "needs engine 9.0"),
        ({"pipeline": None}, "cannot be read"),
    ],
)
def test_pipeline_that_cannot_be_served_says_why(load_pipeline, changes, said):
    if said is None:
        changes, said = {"definition": {"steps": []}}, "no steps"
    with pytest.raises(PipelineError, match=said):
        load_pipeline(BY_TWO, **changes)


def test_model_that_cannot_be_loaded_says_why(load_pipeline):
    with pytest.raises(PipelineError, match="Model broken cannot be loaded"):
        load_pipeline(("broken", "m1", b"not onnx", None))
    with pytest.raises(PipelineError, match=r"another number of inputs \(1\) than of tensor_fields \(2\)"):
        load_pipeline(("by-two", "m1", models.scale(2.0), ["a", "b"]))


def test_model_is_run_once_before_it_serves_and_refused_where_that_fails(load_pipeline):
    with pytest.raises(PipelineError, match="Model odd fails on its first run"):
        load_pipeline(("odd", "m1", models.fails_on_rows(but=2), ["x"]))


def test_fault_that_nobody_expects_counts_as_an_error(load_pipeline, monkeypatch):
    plane = DataPlane(lambda _: None, 2**26)
    plane.swap(load_pipeline(BY_TWO))
    monkeypatch.setattr(plane, "_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plane.infer(orjson.dumps(TWO), JSON, as_arrow=False)
    assert (plane.counters.requests, plane.counters.rows, plane.counters.errors) == (1, 0, 1)


def test_nothing_loaded_yet_is_503():
    with pytest.raises(RequestError) as caught:
        DataPlane(lambda _: None, 1).infer(b"[]", JSON, as_arrow=False)
    assert caught.value.status == 503
