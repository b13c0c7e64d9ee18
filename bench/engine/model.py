"""The model of the comparison: boosted trees as scikit-learn or XGBoost would give them, random but fixed."""

import random

from onnx import TensorProto, helper

FEATURES, TREES, DEPTH = 18, 100, 6


def house_model() -> bytes:
    """`float_input` float32 [N, 18] to `variable` float32 [N, 1]."""
    rng = random.Random(18)
    nodes: dict[str, list[object]] = {name: [] for name in NODE_LISTS}
    targets: dict[str, list[object]] = {
        "target_treeids": [],
        "target_nodeids": [],
        "target_ids": [],
        "target_weights": [],
    }
    inner = 2**DEPTH - 1
    for tree in range(TREES):
        for node in range(2 * inner + 1):
            is_leaf = node >= inner
            values = (tree, node, 0 if is_leaf else rng.randrange(FEATURES), "LEAF" if is_leaf else "BRANCH_LEQ")
            children = (0, 0) if is_leaf else (2 * node + 1, 2 * node + 2)
            for name, value in zip(NODE_LISTS, (*values, rng.gauss(0, 1), *children), strict=True):
                nodes[name].append(value)
            if is_leaf:
                for name, value in zip(targets, (tree, node, 0, rng.gauss(5000, 500)), strict=True):
                    targets[name].append(value)
    regressor = helper.make_node(
        "TreeEnsembleRegressor", ["float_input"], ["variable"], domain="ai.onnx.ml", n_targets=1, **nodes, **targets
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [regressor],
        "house",
        [value("float_input", TensorProto.FLOAT, ["N", FEATURES])],
        [value("variable", TensorProto.FLOAT, ["N", 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


NODE_LISTS = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
)


def rows(count: int) -> list[list[float]]:
    """Inputs as callers send them: numbers with a few decimals."""
    rng = random.Random(count)
    return [[round(rng.gauss(0, 1), 6) for _ in range(FEATURES)] for _ in range(count)]
