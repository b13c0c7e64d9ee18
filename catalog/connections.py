"""Whether the steps of a pipeline fit together: names, types and shapes, checked before a version is made.

What can never fit is refused; what depends on the values (fractions, lengths that are not fixed) is left to
the request. The engine keeps the same rules; both prove it on contract/definitions.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from django.utils.translation import gettext as _

from catalog.definitions import Checks, Part, Stage, labels
from catalog.errors import UnusableDefinition
from catalog.models import ModelVersion

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: `type` as in pipeline.json (`float32`, `string`), `shape` of one row, None: not known."""

    name: str
    type: str
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `tensor_fields` are the columns of its inputs, in their order."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tensor_fields: tuple[str, ...] | None = None


def signature(version: ModelVersion, tensor_fields: list[str] | None) -> Signature:
    """A model version as the checks see it."""
    inputs, outputs = (
        tuple(Tensor(told["name"], told["type"], tuple(told["shape"][1:]) if told["shape"] else None) for told in side)
        for side in (version.inputs, version.outputs)
    )
    return Signature(version.model.name, inputs, outputs, tuple(tensor_fields) if tensor_fields else None)


def source(at: int, model: Signature, columns: Iterable[str], *, is_first: bool) -> str:
    """The column for input `at`: by `tensor_fields`, else by the input's name, else the only one there is.

    `tensor_fields` names what callers send, so it binds the first step; later steps are fed by the step before.
    """
    names = list(columns)
    named = model.tensor_fields[at] if model.tensor_fields else None
    if named is not None and (named in names or is_first):
        return named
    name = model.inputs[at].name
    return names[0] if name not in names and len(names) == 1 and len(model.inputs) == 1 else name


def check(parts: Sequence[Part], models: Mapping[str, Signature]) -> None:
    """Raise UnusableDefinition, naming the step, if a part cannot be fed by what is before it. `models` by version."""
    named = labels(tuple(parts))
    flowing: tuple[int, tuple[Tensor, ...]] | None = None
    known: set[str] = set()
    for part in parts:
        if isinstance(part, Checks):
            _check_columns(part, known, flowing)
            continue
        for model in part.models:
            _check_model(part, models[model.version], flowing)
        if part.split:
            _check_arms(part, [models[model.version] for model in part.models])
        flowing = part.number, models[part.models[part.answers].version].outputs
        known = {name for name in known if not name.startswith("out.")} | {f"out.{o.name}" for o in flowing[1]}
        for place in part.recorded:
            version = part.models[place].version
            known |= {f"out_{named[version]}.{output.name}" for output in models[version].outputs}


def _check_model(stage: Stage, model: Signature, flowing: tuple[int, tuple[Tensor, ...]] | None) -> None:
    if model.tensor_fields and len(model.tensor_fields) != len(model.inputs):
        raise UnusableDefinition(
            _(
                "Step %(step)s: model %(model)s has another number of inputs (%(inputs)s) than of tensor_fields "
                "(%(named)s): configure it again."
            )
            % {
                "step": stage.number,
                "model": model.name,
                "inputs": len(model.inputs),
                "named": len(model.tensor_fields),
            }
        )
    if flowing is None:
        return
    before, columns = flowing
    given = {column.name: column for column in columns}
    for at, wanted in enumerate(model.inputs):
        name = source(at, model, given, is_first=False)
        told = {"step": stage.number, "model": model.name, "name": name, "before": before}
        if name not in given:
            told["given"] = _listed(given)
            raise UnusableDefinition(
                _('Step %(step)s: model %(model)s takes "%(name)s", but step %(before)s gives %(given)s.') % told
            )
        _check_column(given[name], wanted, told)


def _check_column(given: Tensor, wanted: Tensor, told: dict[str, object]) -> None:
    """`told`: the step, the model, the column's name and the step before it, for the refusal."""
    told["wanted"] = wanted.name
    if not _is_convertible(given.type, wanted.type):
        told |= {"type": wanted.type, "given": given.type}
        raise UnusableDefinition(
            _(
                'Step %(step)s: model %(model)s takes %(type)s for "%(wanted)s", but "%(name)s" of step %(before)s '
                "is %(given)s."
            )
            % told
        )
    if not _can_fit(given.shape, wanted.shape):
        told |= {"shape": _shown(wanted.shape), "given": _shown(given.shape)}
        raise UnusableDefinition(
            _(
                'Step %(step)s: model %(model)s takes rows of shape %(shape)s for "%(wanted)s", but "%(name)s" of '
                "step %(before)s has %(given)s."
            )
            % told
        )


def _check_arms(stage: Stage, models: list[Signature]) -> None:
    """Rows of a split come together again, so its models must give the same."""
    first = models[0]
    for model in models[1:]:
        if [(o.name, o.type) for o in model.outputs] != [(o.name, o.type) for o in first.outputs]:
            raise UnusableDefinition(
                _(
                    "Step %(step)s: models %(first)s and %(second)s give different outputs (%(gives)s and "
                    "%(other)s): a split needs the same names and types."
                )
                % {
                    "step": stage.number,
                    "first": first.name,
                    "second": model.name,
                    "gives": _typed(first.outputs),
                    "other": _typed(model.outputs),
                }
            )


def _check_columns(checks: Checks, known: set[str], flowing: tuple[int, tuple[Tensor, ...]] | None) -> None:
    for name, expression in checks.rules:
        for column in sorted(expression.columns()):
            if not column.startswith("in.") and column not in known:
                told = {"step": checks.number, "name": name, "column": column, "known": _listed(sorted(known))}
                if not flowing:
                    raise UnusableDefinition(
                        _('Step %(step)s: validation "%(name)s" reads "%(column)s", but there are no outputs yet.')
                        % told
                    )
                raise UnusableDefinition(
                    _('Step %(step)s: validation "%(name)s" reads "%(column)s", but there is %(known)s.') % told
                )


def _is_convertible(have: str, want: str) -> bool:
    if "string" in (have, want):
        return have == want
    return want != "bool" or have == "bool"


def _can_fit(have: Shape | None, want: Shape | None) -> bool:
    """The rule by which engines lay out a column, with lengths that are not known fitting any."""
    if have is None or want is None:
        return True
    if len(have) == len(want) and all(None in (a, b) or a == b for a, b in zip(have, want, strict=True)):
        return True
    if None in want:
        return False  # a row of another rank cannot be laid out without all lengths
    known = [length for length in have if length is not None]
    if len(known) < len(have):
        return True  # decided by the values
    flat = [length for length in want if length is not None]
    return prod(known) == prod(flat) and (len(known) <= 1 or _squeezed(known) == _squeezed(flat))


def _squeezed(shape: Sequence[int]) -> list[int]:
    return [length for length in shape if length != 1]


def _shown(shape: Shape | None) -> str:
    return "x".join("any" if length is None else str(length) for length in shape or ()) or _("a single number")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _typed(tensors: Iterable[Tensor]) -> str:
    return ", ".join(f"{tensor.name} {tensor.type}" for tensor in tensors)
