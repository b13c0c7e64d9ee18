"""What a pipeline may do: the rules that the engine has too, on the same golden definitions."""

import json
from typing import Any

import pytest

from catalog import connections, definitions
from catalog.connections import Signature, Tensor
from catalog.errors import UnusableDefinition
from tests.conftest import CONTRACT

GOLDEN = json.loads((CONTRACT / "definitions.json").read_text())


def tensors(told: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(one["name"], one["type"], tuple(one["shape"][1:])) for one in told)


MODELS = {
    told["version"]: Signature(
        told["name"],
        tensors(told["inputs"]),
        tensors(told["outputs"]),
        tuple(told["tensor_fields"]) if told["tensor_fields"] else None,
    )
    for told in GOLDEN["models"]
}


@pytest.mark.parametrize("good", GOLDEN["good"], ids=lambda good: good["name"])
def test_a_good_definition_is_taken(good: dict[str, Any]) -> None:
    parts = definitions.read(good["steps"])
    connections.check(parts, MODELS)
    shas = dict.fromkeys(MODELS, "f" * 64)
    steps = definitions.with_shas(good["steps"], shas)
    assert [model["sha"] for step in steps for model in definitions.references_in(step)]
    assert definitions.read(steps) == parts


@pytest.mark.parametrize("bad", GOLDEN["bad"], ids=lambda bad: bad["says"][:60])
def test_a_bad_definition_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UnusableDefinition) as refused:
        connections.check(definitions.read(bad["steps"]), MODELS)
    assert bad["says"] in str(refused.value)
