"""What changes for callers and readers when one publish takes the place of another. Pure.

The interface of a version is what is sent to its first step and what its last step gives back. Inputs are compared
under the names that callers use: the dataset columns (`tensor_fields`), or the model's own names where there are none.
"""

import dataclasses
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class Change(IntEnum):
    """How much a difference asks of the people around an edge; the largest decides."""

    SAME = 0
    WIDENING = 1
    BREAKING = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A named input or output. `shape` has None where any length is taken."""

    name: str
    type: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        shape = "" if self.shape is None else f"[{', '.join('any' if n is None else str(n) for n in self.shape)}]"
        return f"{self.type}{shape}"


@dataclasses.dataclass(frozen=True)
class Interface:
    """What a pipeline version is from outside, and what drift detection hangs on: the pipeline's and models' names.

    `takes_any_name`: its only input is fed by the only column of a request, whatever that is called.
    """

    pipeline: str
    models: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    takes_any_name: bool = False


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference. `where` is `input` or `output`; `old` or `new` is empty where the field is not there."""

    where: str
    name: str
    old: str
    new: str
    change: Change
    text: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Old against new. `renamed` says in sentences which names changed that drift detection is based on."""

    change: Change
    differences: tuple[Difference, ...]
    renamed: tuple[str, ...]


# numpy's lossless casts between kinds: integers up to these bits are whole in a float of that many.
_EXACT_IN_FLOAT = {"float16": 11, "float32": 24, "float64": 53}

_CHANGES = {
    "input": _("The input %(name)s changes from %(old)s to %(new)s."),
    "output": _("The output %(name)s changes from %(old)s to %(new)s."),
}
_GOES = {
    "input": _("The input %(name)s (%(old)s) goes away."),
    "output": _("The output %(name)s (%(old)s) goes away."),
}
_COMES = {
    "input": _("The input %(name)s (%(new)s) is new."),
    "output": _("The output %(name)s (%(new)s) is new."),
}

# What people should think of before they replace: logs, drift detection, requests.
_LOGS = {
    True: _(
        "Inference logs: rows from before stay as they are, with the pipeline that made them; "
        "new rows have the new fields."
    ),
    False: _(
        "Inference logs: rows from before stay as they are, with the pipeline that made them; "
        "new rows have the same fields."
    ),
}
_DRIFT = _(
    "Model drift detection: assays are based on the pipeline and the model name; %(renamed)s "
    "Pause the assays of the old names and create new ones."
)
_NO_DRIFT = _(
    "Model drift detection: assays are based on the pipeline and the model name; neither changes, so they go on."
)
_REQUESTS = {
    Change.SAME: _("Inference requests: fields and types are the same, so they stay as they are."),
    Change.WIDENING: _("Inference requests: what is sent today still works; new is: %(differences)s"),
    Change.BREAKING: _("Inference requests: they must be changed to match: %(differences)s"),
}


def tensors(found: Sequence[dict[str, Any]], names: Sequence[str] | None = None) -> tuple[Tensor, ...]:
    """The tensors of a model's stored schema; `names` are the dataset columns in the order of the inputs."""
    called = names if names and len(names) == len(found) else [str(tensor["name"]) for tensor in found]
    return tuple(
        Tensor(name, str(tensor["type"]), None if tensor.get("shape") is None else tuple(tensor["shape"]))
        for name, tensor in zip(called, found, strict=True)
    )


def compare(old: Interface, new: Interface) -> Comparison:
    """What is different when `new` answers the callers of `old`."""
    differences = (*_inputs(old, new), *_outputs(old.outputs, new.outputs))
    change = max((found.change for found in differences), default=Change.SAME)
    return Comparison(change, differences, tuple(_renamed(old, new)))


def considerations(comparison: Comparison) -> tuple[str, str, str]:
    """The three things to think of before replacing, for this comparison: logs, drift detection, requests."""
    renamed, differences = " ".join(comparison.renamed), _joined(comparison, comparison.change)
    return (
        str(_LOGS[comparison.change is not Change.SAME]),
        str(_DRIFT % {"renamed": renamed} if renamed else _NO_DRIFT),
        str(_REQUESTS[comparison.change] % {"differences": differences}),
    )


def _joined(comparison: Comparison, change: Change) -> str:
    return " ".join(found.text for found in comparison.differences if found.change is change)


def _inputs(earlier: Interface, later: Interface) -> list[Difference]:
    old, new = earlier.inputs, later.inputs
    if later.takes_any_name and len(old) == len(new) == 1 and old[0].name != new[0].name:
        return [_renamed_input(old[0], new[0])]
    before, after = {t.name: t for t in old}, {t.name: t for t in new}
    found = [_made("input", t, None, Change.BREAKING) for t in old if t.name not in after]
    # A caller of today does not send it, so the engine would refuse every request.
    found += [_made("input", None, t, Change.BREAKING) for t in new if t.name not in before]
    pairs = [(before[t.name], t) for t in new if t.name in before]
    return found + [_made("input", a, b, _takes(b, a)) for a, b in pairs if a != b]


def _outputs(old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Difference]:
    before, after = {t.name: t for t in old}, {t.name: t for t in new}
    found = [_made("output", t, None, Change.BREAKING) for t in old if t.name not in after]
    found += [_made("output", None, t, Change.WIDENING) for t in new if t.name not in before]
    pairs = [(before[t.name], t) for t in new if t.name in before]
    # The other way round: who reads the old output must be able to read the new one.
    return found + [_made("output", a, b, _takes(a, b)) for a, b in pairs if a != b]


def _takes(taker: Tensor, given: Tensor) -> Change:
    """Whether a place for `taker` holds everything that `given` may be."""
    return Change.WIDENING if _holds(taker.type, given.type) and _fits(taker.shape, given.shape) else Change.BREAKING


def _holds(taker: str, given: str) -> bool:
    """Whether every value of a type is exact in another: what the engine casts without refusing or rounding."""
    if taker == given:
        return True
    (taken, bits), (kind, given_bits) = _kind(taker), _kind(given)
    match kind, taken:
        case ("int", "int") | ("uint", "uint") | ("float", "float"):
            return bits > given_bits
        case "uint", "int":
            return bits > given_bits
        case (("int" | "uint"), "float"):
            return _EXACT_IN_FLOAT.get(taker, 0) >= given_bits
    return False


def _kind(name: str) -> tuple[str, int]:
    kind = name.rstrip("0123456789")
    return kind, int(name[len(kind) :] or 0)


def _fits(taker: tuple[int | None, ...] | None, given: tuple[int | None, ...] | None) -> bool:
    if taker is None:
        return True
    if given is None or len(taker) != len(given):
        return False
    return all(a is None or a == b for a, b in zip(taker, given, strict=True))


def _made(where: str, old: Tensor | None, new: Tensor | None, change: Change) -> Difference:
    name = (old or new).name  # type: ignore[union-attr]
    told = {"name": name, "old": old, "new": new}
    if old and new:
        text = _CHANGES[where] % told
    elif old:
        text = _GOES[where] % told
    else:
        text = _COMES[where] % told
    return Difference(where, name, str(old or ""), str(new or ""), change, text)


def _renamed_input(old: Tensor, new: Tensor) -> Difference:
    change = _takes(new, old)
    told = {"name": old.name, "old": old, "new_name": new.name, "new": new}
    text = gettext("The only input, %(name)s (%(old)s), is called %(new_name)s (%(new)s) now.") % told
    if change is not Change.BREAKING:
        text = f"{text} {gettext('Requests with this one column are taken under any name.')}"
    return Difference("input", old.name, str(old), str(new), change, text)


def _renamed(old: Interface, new: Interface) -> list[str]:
    found = []
    if old.pipeline != new.pipeline:
        found.append(
            gettext("The pipeline changes from %(old)s to %(new)s.") % {"old": old.pipeline, "new": new.pipeline}
        )
    if old.models != new.models:
        names = {"old": ", ".join(old.models), "new": ", ".join(new.models)}
        found.append(gettext("The models change from %(old)s to %(new)s.") % names)
    return found
