"""A request to begin with: records that fit a pipeline, for people to put their own numbers in. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from publishing.schema_changes import Interface, Tensor

MOST_VALUES = 2000  # of a record that is written out
UNKNOWN = 1  # length where any is taken
VALUES: dict[str, Any] = {"bool": False, "string": "text"}


def of_interface(interface: Interface) -> str:
    """JSON of one record; empty where a record would be too long to read, or nothing is known of the inputs."""
    inputs = interface.inputs
    if not inputs or any(tensor.shape is None for tensor in inputs) or _values(inputs) > MOST_VALUES:
        return ""
    return json.dumps([{tensor.name: _value(tensor) for tensor in inputs}], indent=2)


def of_golden(content: str) -> str:
    """JSON of the records of a golden request; empty when they are too long to read."""
    text = json.dumps(json.loads(content)["input"], indent=2)
    return text if len(text) <= 16 * MOST_VALUES else ""


def _lengths(tensor: Tensor) -> list[int]:
    """Of a row: the first axis is the rows'."""
    return [UNKNOWN if length is None else length for length in (tensor.shape or ())[1:]]


def _values(inputs: Sequence[Tensor]) -> int:
    total = 0
    for tensor in inputs:
        count = 1
        for length in _lengths(tensor):
            count *= length
        total += count
    return total


def _value(tensor: Tensor) -> Any:
    value = VALUES.get(tensor.type, 0.0 if "float" in tensor.type else 0)
    for length in reversed(_lengths(tensor)):
        value = [value] * length
    return value
