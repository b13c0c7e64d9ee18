"""Shadows, splits, audits and validations: who answers, what is recorded, what is refused."""

import io
from collections import Counter

import orjson
import pyarrow as pa
import pytest

from engine.tests.conftest import ARROW, JSON
from engine.tests.fakes import models
from engine.tests.fakes.models import DOUBLE
from opsengine import chunks, encode, rows
from opsengine.errors import PipelineError, RequestError
from opsengine.plane import DataPlane

V = ["00000000-0000-4000-8000-00000000000%d" % n for n in range(5)]  # noqa: UP031
BY_TWO = ("by-two", V[2], models.scale(2.0), ["tensor"])
BY_THREE = ("by-three", V[3], models.scale(3.0), ["tensor"])
ROW = [{"tensor": [1.0, 2.0]}]


def named(*parts):
    return [{"name": part[0], "version": part[1]} for part in parts]


def inference(*parts):
    return {"ModelInference": {"models": named(*parts)}}


def split(key, *arms):
    weights = [{"model": named(part)[0], "weight": weight} for part, weight in arms]
    return {"RandomSplit": {"hash_key": key, "weights": weights}}


def rules(**told):
    return {"Check": {"rules": told}}


SHADOWS = [inference(BY_TWO, BY_THREE)]
AS_THE_SDK = [*SHADOWS, {"AuditResults": {"from": 1, "to": None}}, {"MultiOut": {}}]


@pytest.mark.parametrize("steps", [SHADOWS, AS_THE_SDK])
def test_first_model_answers_and_the_others_are_shadows(infer, steps):
    (row,) = infer(ROW, BY_TWO, BY_THREE, steps=steps)
    assert row["out"] == {"y": [2.0, 4.0]}
    assert row["out_by-three"] == {"y": [3.0, 6.0]}
    assert row["shadow_data"] == {"by-three": [{"Float": {"data": [3.0, 6.0], "dim": [1, 2], "v": 1}}]}
    assert row["model_name"] == "by-two"


def test_shadows_are_logged_and_can_be_asked_for(infer):
    (flat,) = infer(ROW, BY_TWO, BY_THREE, steps=SHADOWS, query="dataset[]=*&dataset.exclude[]=metadata")
    assert flat["out_by-three.y"] == [3.0, 6.0]
    (result,) = infer.logged
    batch = rows.to_batch(chunks.whole(list(chunks.pack([result, result]))))
    assert batch.schema.names == ["time", "in", "out", "out_by-three", "anomaly", "metadata"]
    again = orjson.loads(b"[" + encode.log_json(rows.from_batch(batch), None) + b"]")
    assert [row["out_by-three"] for row in again] == [{"y": [3.0, 6.0]}] * 2


def test_shadow_that_fails_does_not_cost_the_answer(infer):
    narrow = ("narrow", V[4], models.scale(2.0, width=7), ["tensor"])
    (row,) = infer(ROW, BY_TWO, narrow, steps=[inference(BY_TWO, narrow)])
    assert (row["out"], row["shadow_data"]) == ({"y": [2.0, 4.0]}, {})


def test_shadow_of_another_type_gets_what_was_sent(infer):
    exact = ("exact", V[4], models.scale(1.0, kind=DOUBLE), ["tensor"])
    (row,) = infer([{"tensor": [0.1, 0.2]}], BY_TWO, exact, steps=[inference(BY_TWO, exact)])
    assert row["out_exact"] == {"y": [0.1, 0.2]}


def test_two_versions_of_a_model_are_told_apart(infer):
    other = ("by-two", V[3], models.scale(3.0), ["tensor"])
    (row,) = infer(ROW, BY_TWO, other, steps=[inference(BY_TWO, other)])
    assert row["out_by-two-00000000"] == {"y": [3.0, 6.0]}


def test_nth_lets_another_answer_and_go_on(infer):
    (row,) = infer(ROW, BY_TWO, BY_THREE, steps=[*SHADOWS, {"Nth": {"index": 1}}])
    assert (row["out"], row["model_name"], row["shadow_data"]) == ({"y": [3.0, 6.0]}, "by-three", {})


def test_audit_records_an_intermediate_result(infer):
    steps = [inference(BY_TWO), {"AuditResults": {"from": 0, "to": 1}}, inference(BY_THREE)]
    (row,) = infer(ROW, BY_TWO, BY_THREE, steps=steps)
    assert (row["out"], row["out_by-two"]) == ({"y": [6.0, 12.0]}, {"y": [2.0, 4.0]})


def test_random_split_follows_the_weights_row_by_row(infer):
    answers = infer(ROW * 4000, BY_TWO, BY_THREE, steps=[split(None, (BY_TWO, 3), (BY_THREE, 1))])
    shares = Counter(row["model_name"] for row in answers)
    assert 2800 < shares["by-two"] < 3200 and sum(shares.values()) == 4000
    for row in answers:
        assert row["out"]["y"] == ([2.0, 4.0] if row["model_name"] == "by-two" else [3.0, 6.0])
        assert orjson.loads(row["out"]["_model_split"][0])["name"] == row["model_name"]
        assert orjson.loads(row["metadata"]["last_model"])["model_name"] == row["model_name"]


def test_model_without_weight_gets_nothing(infer):
    answers = infer(ROW * 200, BY_TWO, BY_THREE, steps=[split(None, (BY_TWO, 0), (BY_THREE, 1))])
    assert {row["model_name"] for row in answers} == {"by-three"}


def test_sticky_split_sends_a_key_to_the_same_model_in_json_and_arrow(infer):
    steps = [split("visit", (BY_TWO, 1), (BY_THREE, 1))]
    records = [{"tensor": [1.0, 2.0], "visit": n % 50} for n in range(200)]
    first = infer(records, BY_TWO, BY_THREE, steps=steps)
    chosen = {row["in"]["visit"]: row["model_name"] for row in first}
    assert set(chosen.values()) == {"by-two", "by-three"}
    assert all(chosen[row["in"]["visit"]] == row["model_name"] for row in first)
    table = pa.table({"tensor": [r["tensor"] for r in records], "visit": pa.array([float(n % 50) for n in range(200)])})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    second = infer(sink.getvalue(), BY_TWO, BY_THREE, steps=steps, kind=ARROW)
    assert [row["model_name"] for row in second] == [row["model_name"] for row in first]


def test_sticky_split_without_its_column_is_a_400(infer):
    with pytest.raises(RequestError, match='Column "visit" is missing') as refused:
        infer(ROW, BY_TWO, BY_THREE, steps=[split("visit", (BY_TWO, 1), (BY_THREE, 1))])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "model"), [("eu", "by-three"), ("us", "by-two"), (None, "by-two"), (7, "by-three"), (["eu"], "by-three")]
)
def test_split_by_value_takes_the_route_or_the_control(infer, value, model):
    routes = {"eu": named(BY_THREE)[0], "7": named(BY_THREE)[0]}
    steps = [{"MetaValueSplit": {"split_key": "region", "control": named(BY_TWO)[0], "routes": routes}}]
    (row,) = infer([{"tensor": [1.0, 2.0], "region": value}], BY_TWO, BY_THREE, steps=steps)
    assert row["model_name"] == model
    (row,) = infer(ROW, BY_TWO, BY_THREE, steps=steps)
    assert row["model_name"] == "by-two"


def test_key_column_does_not_stand_in_the_way_of_the_only_input(infer):
    two, three = (("by-two", V[2], models.scale(2.0), None), ("by-three", V[3], models.scale(3.0), None))
    answers = infer([{"anything": [1, 2], "visit": "a"}], two, three, steps=[split("visit", (two, 1), (three, 1))])
    assert answers[0]["in"] == {"anything": [1.0, 2.0], "visit": "a"}


def test_split_in_the_middle_of_a_chain_goes_by_the_request(infer):
    routes = {"eu": named(BY_THREE)[0]}
    choose = {"MetaValueSplit": {"split_key": "region", "control": named(BY_TWO)[0], "routes": routes}}
    start = ("start", V[1], models.scale(10.0), ["tensor"])
    records = [{"tensor": [1.0, 2.0], "region": region} for region in ("eu", "us", "eu")]
    answers = infer(records, start, BY_TWO, BY_THREE, steps=[inference(start), choose])
    assert [row["out"]["y"] for row in answers] == [[30.0, 60.0], [20.0, 40.0], [30.0, 60.0]]


def test_split_rows_are_logged_together(infer):
    answers = infer(ROW * 40, BY_TWO, BY_THREE, steps=[split(None, (BY_TWO, 1), (BY_THREE, 1))])
    (result,) = infer.logged
    logged = rows.to_batch(chunks.whole(list(chunks.pack([result, result])))).to_pylist()
    assert [row["metadata"]["last_model"] for row in logged[:40]] == [row["metadata"]["last_model"] for row in answers]
    assert [row["out"] for row in logged[40:]] == [row["out"] for row in answers]


def test_validations_become_anomalies(infer):
    steps = [
        inference(BY_TWO),
        rules(
            high={"field": "out.y[1]", "op": ">", "value": 4}, small={"field": "in.tensor[0]", "op": "<", "value": 2}
        ),
    ]
    first, second = infer([{"tensor": [1.0, 2.0]}, {"tensor": [1.0, 3.0]}], BY_TWO, steps=steps)
    assert first["anomaly"] == {"count": 1, "high": False, "small": True}
    assert second["anomaly"] == {"count": 2, "high": True, "small": True}
    assert (first["check_failures"], second["check_failures"]) == ([1], [0, 1])
    batch = rows.to_batch(rows.of_result(infer.logged[0]))
    assert batch.schema.field("anomaly").type == pa.struct(
        {"count": pa.int32(), "high": pa.bool_(), "small": pa.bool_()}
    )


def expression(told):
    return {"Check": {"tree": [orjson.dumps({"Alias": [told, "it"]}).decode()]}}


def get(column, index):
    return {"Function": {"input": [{"Column": column}, {"Literal": {"Int32": index}}], "function": {"ListExpr": "Get"}}}


def binary(left, op, right):
    return {"BinaryExpr": {"left": left, "op": op, "right": right}}


def number(value):
    return {"Literal": {"Float64": value}}


def function(name, *inputs):
    return {"Function": {"input": list(inputs), "function": name}}


HIGH = binary(get("out.y", 0), "Gt", number(5.0))


@pytest.mark.parametrize(
    ("told", "truth"),
    [
        (HIGH, [False, True]),
        (function({"Boolean": "IsNot"}, HIGH), [True, False]),
        (function({"Boolean": "Not"}, HIGH), [True, False]),
        (binary(HIGH, "Or", binary({"Column": "in.age"}, "Lt", number(30))), [True, True]),
        (binary(HIGH, "And", binary({"Column": "in.name"}, "Eq", {"Literal": {"Utf8": "b"}})), [False, True]),
        (binary({"Column": "in.name"}, "Eq", {"Literal": {"Scalar": {"String": "a"}}}), [True, False]),
        (function({"Boolean": "IsNull"}, {"Column": "in.maybe"}), [False, True]),
        (binary({"Column": "in.maybe"}, "Gt", number(0)), [True, False]),
        (
            function({"Boolean": {"IsBetween": {"closed": "Both"}}}, get("out.y", 1), number(4), number(5)),
            [True, False],
        ),
        (binary(function({"ListExpr": "Max"}, {"Column": "out.y"}), "Eq", number(20.0)), [False, True]),
        (binary(binary(get("out.y", -1), "Multiply", number(0.5)), "LtEq", number(2.0)), [True, False]),
        (binary(function("Abs", get("out.y", 0)), "Lt", number(3)), [True, False]),
        (binary(get("out.y", 9), "Gt", number(0)), [False, False]),
    ],
)
def test_expressions_of_the_public_sdk(infer, told, truth):
    records = [
        {"tensor": [1.0, 2.0], "age": 20, "name": "a", "maybe": 1},
        {"tensor": [3.0, 10.0], "age": 40, "name": "b", "maybe": None},
    ]
    answers = infer(records, BY_TWO, steps=[inference(BY_TWO), expression(told)])
    assert [row["anomaly"]["it"] for row in answers] == truth


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("in.absent", 1, "Validation \"it\" reads column 'in.absent'"),
        ("in.name", 1, 'Validation "it" cannot be computed on these values: text and numbers'),
        ("out.y", 1, 'Validation "it" cannot be computed on these values: a list is not a single value'),
    ],
)
def test_validation_that_cannot_be_computed_is_a_400_that_names_it(infer, field, value, said):
    steps = [inference(BY_TWO), rules(it={"field": field, "op": ">", "value": value})]
    with pytest.raises(RequestError) as refused:
        infer([{"tensor": [1.0, 2.0], "name": "a"}], BY_TWO, steps=steps)
    assert (refused.value.status, said in str(refused.value)) == (400, True)


def test_steps_that_do_not_fit_are_not_loaded(load_pipeline):
    with pytest.raises(
        PipelineError, match='Step 2: model words takes string for "word", but "y" of step 1 is float32'
    ):
        load_pipeline(BY_TWO, ("words", V[1], models.echo_text(), None))
    wide = ("wide", V[1], models.scale(1.0, width=7), None)
    with pytest.raises(PipelineError, match="Step 2: model wide takes rows of shape 7"):
        load_pipeline(BY_TWO, wide)


def test_arrow_answer_carries_shadows(load_pipeline):
    plane = DataPlane(lambda _: None, 2**26)
    plane.swap(load_pipeline(BY_TWO, BY_THREE, steps=SHADOWS))
    table = pa.ipc.open_file(plane.infer(orjson.dumps(ROW), JSON, as_arrow=True)).read_all()
    assert table.column("out_by-three").to_pylist() == [{"y": [3.0, 6.0]}]
