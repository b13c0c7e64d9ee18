"""What a pipeline may do: the rules that the center has too, on the same golden definitions."""

import json

import pytest

from engine.tests.conftest import ROOT
from opsengine import connections, steps
from opsengine.connections import Signature, Tensor
from opsengine.errors import PipelineError

GOLDEN = json.loads((ROOT / "contract" / "definitions.json").read_text())


def tensors(told):
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
def test_good_definition_is_taken(good):
    connections.check(steps.read(good["steps"]), MODELS)


@pytest.mark.parametrize("bad", GOLDEN["bad"], ids=lambda bad: bad["says"][:60])
def test_bad_definition_is_refused(bad):
    with pytest.raises(PipelineError) as refused:
        connections.check(steps.read(bad["steps"]), MODELS)
    assert bad["says"] in str(refused.value)
