from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper


@pytest.fixture
def make_onnx() -> Callable[..., bytes]:
    """The bytes of a small valid model: `y = x @ w`, with one weight among the initializers."""

    def make(
        *,
        features: int = 18,
        opset: int = 17,
        elem_type: int = TensorProto.FLOAT,
        weights_among_inputs: bool = False,
        op_type: str = "MatMul",
    ) -> bytes:
        def value(name: str, shape: list[Any]) -> Any:
            return helper.make_tensor_value_info(name, elem_type, shape)

        weight = helper.make_tensor("w", elem_type, [features, 1], [1.0] * features)
        inputs = [value("x", ["batch", features])] + ([value("w", [features, 1])] if weights_among_inputs else [])
        node = helper.make_node(op_type, ["x", "w"], ["y"])
        graph = helper.make_graph([node], "small", inputs, [value("y", ["batch", 1])], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        content: bytes = model.SerializeToString()
        return content

    return make


@pytest.fixture
def onnx_module() -> Any:
    return onnx
