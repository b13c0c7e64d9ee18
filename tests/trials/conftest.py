"""A pipeline version with a real model, to be tried by the real engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from catalog.models import ModelVersion, PipelineVersion

FEATURES = 3


def weighted_sum(weight: float = 2.0) -> bytes:
    """`y` is the sum of three numbers, each times `weight`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [FEATURES, 1], [weight] * FEATURES)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "sum", inputs, outputs, [weights])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    """Where trials lie."""
    settings.DATA = tmp_path
    return tmp_path / "trials"


@pytest.fixture
def make_version(
    make_model_version: Callable[..., ModelVersion], make_pipeline_version: Callable[..., PipelineVersion]
) -> Callable[..., PipelineVersion]:
    def make(content: bytes | None = None, **fields: Any) -> PipelineVersion:
        schema = {
            "inputs": [{"name": "x", "type": "float32", "shape": [None, FEATURES]}],
            "outputs": [{"name": "y", "type": "float32", "shape": [None, 1]}],
        }
        return make_pipeline_version(
            make_model_version(content=weighted_sum() if content is None else content, **(schema | fields))
        )

    return make


@pytest.fixture
def version(make_version: Callable[..., PipelineVersion]) -> PipelineVersion:
    return make_version()
