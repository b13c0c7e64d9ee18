"""Small ONNX models."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def _model(nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def scale(factor, width=2, kind=FLOAT, source="x", result="y", batch="N"):
    """y = x * factor, rows of `width` numbers."""
    dtype = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64}[kind]
    constant = numpy_helper.from_array(np.array([factor], dtype=dtype), "k")
    shape = [batch, *width] if isinstance(width, tuple) else [batch, width]
    value = helper.make_tensor_value_info
    node = helper.make_node("Mul", [source, "k"], [result])
    return _model([node], [value(source, kind, shape)], [value(result, kind, shape)], [constant])


def add_two(a="a", b="b"):
    """sum = a + b, one number each a row."""
    value = helper.make_tensor_value_info
    inputs = [value(a, FLOAT, ["N", 1]), value(b, FLOAT, ["N", 1])]
    return _model([helper.make_node("Add", [a, b], ["sum"])], inputs, [value("sum", FLOAT, ["N", 1])])


def echo_text(*shape):
    """The very text that came in."""
    value = helper.make_tensor_value_info
    node, rows = helper.make_node("Identity", ["word"], ["said"]), ["N", *shape]
    return _model([node], [value("word", TensorProto.STRING, rows)], [value("said", TensorProto.STRING, rows)])


def class_and_scores():
    """Two outputs: the row's largest place [N] (int64) and the row itself [N,3]."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["x"], ["scores"]),
    ]
    outputs = [value("label", INT64, ["N"]), value("scores", FLOAT, ["N", 3])]
    return _model(nodes, [value("x", FLOAT, ["N", 3])], outputs)


def fails_on_rows(but=1):
    """y = x for `but` rows; with others the model itself fails (a Reshape that cannot be)."""
    shape = numpy_helper.from_array(np.array([but, 2], dtype=np.int64), "rows")
    value = helper.make_tensor_value_info
    node = helper.make_node("Reshape", ["x", "rows"], ["y"])
    return _model([node], [value("x", FLOAT, ["N", 2])], [value("y", FLOAT, ["N", 2])], [shape])


def rows_against_rows():
    """y = x times x turned, so that each row's answer depends on the other rows."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    value = helper.make_tensor_value_info
    return _model(nodes, [value("x", FLOAT, ["N", 2])], [value("y", FLOAT, ["N", "N"])])


def slow(times=60):
    """Rows of 300 x 300 numbers through many multiplications: a good part of a second for a few rows."""
    rng = np.random.default_rng(1)
    weights = numpy_helper.from_array((rng.random((300, 300)) / 300).astype(np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x" if at == 0 else f"h{at}", "w"], [f"h{at + 1}"]) for at in range(times)]
    nodes.append(helper.make_node("ReduceMean", [f"h{times}"], ["y"], axes=[1, 2], keepdims=0))
    value = helper.make_tensor_value_info
    return _model(nodes, [value("x", FLOAT, ["N", 300, 300])], [value("y", FLOAT, ["N"])], [weights])
