"""Whether the steps of a pipeline fit together: names, types and shapes, checked before anything is served.

What can never fit is refused; what depends on the values (fractions, lengths that are not fixed) is left to
the request. The center keeps the same rules; both prove it on contract/definitions.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from opsengine.errors import PipelineError
from opsengine.fields import Shape
from opsengine.steps import Checks, Part, Stage, labels


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
    """Raise PipelineError, naming the step, if a part cannot be fed by what stands before it. `models` by version."""
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
        raise PipelineError(
            f"Step {stage.number}: model {model.name} has another number of inputs ({len(model.inputs)}) "
            f"than of tensor_fields ({len(model.tensor_fields)}): configure it again."
        )
    if flowing is None:
        return
    before, columns = flowing
    given = {column.name: column for column in columns}
    for at, wanted in enumerate(model.inputs):
        name = source(at, model, given, is_first=False)
        where = f"Step {stage.number}: model {model.name}"
        if name not in given:
            raise PipelineError(f'{where} takes "{name}", but step {before} gives {_listed(given)}.')
        if not _is_convertible(given[name].type, wanted.type):
            raise PipelineError(
                f'{where} takes {wanted.type} for "{wanted.name}", but "{name}" of step {before} is {given[name].type}.'
            )
        if not _can_fit(given[name].shape, wanted.shape):
            raise PipelineError(
                f'{where} takes rows of shape {_shown(wanted.shape)} for "{wanted.name}", '
                f'but "{name}" of step {before} has {_shown(given[name].shape)}.'
            )


def _check_arms(stage: Stage, models: list[Signature]) -> None:
    """Rows of a split come together again, so its models must give the same."""
    first = models[0]
    for model in models[1:]:
        if [(o.name, o.type) for o in model.outputs] != [(o.name, o.type) for o in first.outputs]:
            raise PipelineError(
                f"Step {stage.number}: models {first.name} and {model.name} give different outputs "
                f"({_typed(first.outputs)} and {_typed(model.outputs)}): a split needs the same names and types."
            )


def _check_columns(checks: Checks, known: set[str], flowing: tuple[int, tuple[Tensor, ...]] | None) -> None:
    for name, expression in checks.rules:
        for column in sorted(expression.columns()):
            if not column.startswith("in.") and column not in known:
                given = f"there is {_listed(sorted(known))}" if flowing else "there are no outputs yet"
                raise PipelineError(f'Step {checks.number}: validation "{name}" reads "{column}", but {given}.')


def _is_convertible(have: str, want: str) -> bool:
    if "string" in (have, want):
        return have == want
    return want != "bool" or have == "bool"


def _can_fit(have: Shape | None, want: Shape | None) -> bool:
    """The rule of `fields.fit`, with lengths that are not known fitting any."""
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
    return "x".join("any" if length is None else str(length) for length in shape or ()) or "a single number"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _typed(tensors: Iterable[Tensor]) -> str:
    return ", ".join(f"{tensor.name} {tensor.type}" for tensor in tensors)
