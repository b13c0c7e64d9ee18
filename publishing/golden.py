"""The golden request of a publish: records with the answer they must get, which an engine tries before it serves. Pure.

What is written is `golden.json` of the contract: `{"input": [record, …], "output": {column: [a value a record]}}` with
`rtol` and `atol` where they are given.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from publishing.errors import UnusableGolden
from publishing.schema_changes import Interface

KEYS = frozenset({"input", "output", "rtol", "atol"})
MOST_BYTES = 4 * 1024 * 1024  # as JSON; engines take 16 MiB
ARMS = "_model_split"  # a column that the engine adds to the outputs of a split
EXAMPLE = '{"input": [{"tensor": [1.0, 2.0]}], "output": {"variable": [[3.0]]}, "rtol": 0.0001, "atol": 0.000001}'


@dataclass(frozen=True)
class Golden:
    """A golden request as it is stored and shipped."""

    content: str
    digest: str
    records: int


def checked(given: Any, interface: Interface) -> Golden:
    """A golden request that fits a pipeline with this interface, in one form only. Raises `UnusableGolden`.

    Columns are compared where the models tell their names; the values themselves only an engine can judge.
    """
    if not isinstance(given, Mapping) or not {"input", "output"} <= given.keys():
        raise UnusableGolden(
            _("A golden request is an object with input and output, for example %(example)s.") % {"example": EXAMPLE}
        )
    if unknown := sorted(set(given) - KEYS):
        raise UnusableGolden(
            _("A golden request has no %(unknown)r, only input, output, rtol and atol.") % {"unknown": unknown[0]}
        )
    records, output = given["input"], given["output"]
    if not isinstance(records, list) or not records or not all(isinstance(row, Mapping) and row for row in records):
        raise UnusableGolden(_("input of the golden request is a list of records, as they are sent to the pipeline."))
    if not isinstance(output, Mapping) or not output:
        raise UnusableGolden(_("output of the golden request is an object of columns, each with a value a record."))
    _check_inputs(records, [tensor.name for tensor in interface.inputs])
    for name, values in output.items():
        _check_output(name, values, len(records), [tensor.name for tensor in interface.outputs])
    for name in ("rtol", "atol"):
        _check_tolerance(name, given.get(name, 0))
    content = _packed(given)
    return Golden(content, f"sha256:{sha256(content.encode()).hexdigest()}", len(records))


def _check_inputs(records: Sequence[Mapping[str, Any]], known: Sequence[str]) -> None:
    if len(known) < 2:  # the only input takes the only column, whatever it is called
        return
    for number, row in enumerate(records):
        if missing := sorted(set(known) - row.keys()):
            raise UnusableGolden(
                _("input %(number)s of the golden request lacks %(missing)r, an input of the pipeline.")
                % {"number": number, "missing": missing[0]}
            )


def _check_output(name: str, values: Any, records: int, known: Sequence[str]) -> None:
    if known and name not in {*known, ARMS}:
        raise UnusableGolden(
            _("output of the golden request names %(name)r, but the pipeline gives %(known)s.")
            % {"name": name, "known": ", ".join(sorted(known))}
        )
    if not isinstance(values, list) or len(values) != records:
        raise UnusableGolden(
            _("%(name)r in output of the golden request is a list with one value a record: %(records)s.")
            % {"name": name, "records": records}
        )


def _check_tolerance(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise UnusableGolden(_("%(name)s of the golden request is a number of at least 0.") % {"name": name})


def _packed(given: Mapping[str, Any]) -> str:
    """One form only, so that the same request has the same digest."""
    try:
        content = json.dumps(given, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(content.encode())
    except ValueError as exc:  # also a lone surrogate, which is no text
        raise UnusableGolden(_("The golden request has a number or text that JSON cannot hold, such as NaN.")) from exc
    if size > MOST_BYTES:
        raise UnusableGolden(
            ngettext(
                "The golden request has %(size)s bytes, more than %(most_bytes)s: take fewer records.",
                "The golden request has %(size)s bytes, more than %(most_bytes)s: take fewer records.",
                size,
            )
            % {"size": size, "most_bytes": MOST_BYTES}
        )
    return content
