"""The steps of a pipeline, read and checked (docs/pipelines.md). Pure: what the models are is told by the caller. The
engine keeps the same rules; both prove it on contract/definitions.json.

A step that runs models becomes a *stage*; `AuditResults`, `Nth` and `MultiOut` only say which of the stage's results
answer and which are recorded, so they are folded into it.
"""

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext, ngettext

from catalog import expressions
from catalog.errors import UnusableDefinition
from catalog.expressions import Expression

STEP_LIMIT = 64  # a chain of models, not a program
MODEL_LIMIT = 32  # models of one step
NOT_RUN = ("ColumnsSelect", "ColumnsToRows", "Average", "RowsToModels")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
RESERVED = "count"  # anomaly.count is the number of validations that were true


@dataclass(frozen=True, slots=True)
class Reference:
    """A model version that a step names; `sha` where it says which file that is."""

    name: str
    version: str
    sha: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Split:
    """Which of the stage's models takes a row: by weight (sticky by `key`, if there is one), or by the value of `key`.

    With `routes`, values that are not listed go to the first model.
    """

    key: str | None
    weights: tuple[float, ...] = ()
    routes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Models that take the same columns. `answers` is the place of the one whose outputs go on."""

    number: int  # of its step, from 1
    models: tuple[Reference, ...]
    split: Split | None
    answers: int
    recorded: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checks:
    """Validations, by name."""

    number: int
    rules: tuple[tuple[str, Expression], ...]


Part = Stage | Checks


def read(steps: object) -> tuple[Part, ...]:
    """The parts of a definition's `steps`. Raises UnusableDefinition that names the step."""
    if not isinstance(steps, list) or not steps:
        raise UnusableDefinition(gettext('"steps" is a list of at least one step.'))
    if len(steps) > STEP_LIMIT:
        raise UnusableDefinition(
            gettext("A pipeline has at most %(step_limit)s steps, this one has %(count)s.")
            % {"step_limit": STEP_LIMIT, "count": len(steps)}
        )
    reader = _Reader()
    for number, step in enumerate(steps, start=1):
        reader.take(number, step)
    return reader.parts()


def labels(parts: tuple[Part, ...]) -> dict[str, str]:
    """How each model version is called in columns: by its name, or by name and version where names repeat."""
    named = {model.version: model.name for part in parts if isinstance(part, Stage) for model in part.models}
    return {
        version: name if list(named.values()).count(name) == 1 else f"{name}-{version[:8]}"
        for version, name in named.items()
    }


@dataclass(slots=True)
class _Draft:
    number: int
    models: tuple[Reference, ...]
    split: Split | None = None
    alive: list[int] = field(default_factory=list)
    audited: set[int] | None = None

    def stage(self, *, is_last: bool) -> Stage:
        answers = self.alive[0]
        recorded = set(self.alive) - {answers} if self.audited is None else set(self.audited)
        if is_last:
            recorded -= {answers}
        return Stage(self.number, self.models, self.split, answers, tuple(sorted(recorded)))


class _Reader:
    """Takes the steps in order."""

    def __init__(self) -> None:
        self._made: list[_Draft | Checks] = []
        self._names: set[str] = set()
        self._kinds: dict[str, Callable[[int, Any], None]] = {
            "ModelInference": self._inference,
            "RandomSplit": self._random_split,
            "MetaValueSplit": self._value_split,
            "AuditResults": self._audit,
            "Nth": self._nth,
            "MultiOut": self._multi_out,
            "Check": self._check,
        }

    def take(self, number: int, step: object) -> None:
        if not isinstance(step, dict) or len(step) != 1:
            raise UnusableDefinition(
                gettext('Step %(number)s is an object of one key, its kind: {"ModelInference": {…}}.')
                % {"number": number}
            )
        kind, content = next(iter(step.items()))
        if kind in NOT_RUN:
            raise UnusableDefinition(
                gettext("Step %(number)s is a %(kind)s, which engines do not run: known are %(kinds)s.")
                % {"number": number, "kind": kind, "kinds": ", ".join(self._kinds)}
            )
        if kind not in self._kinds:
            raise UnusableDefinition(
                gettext("Step %(number)s is of the unknown kind %(kind)r: known are %(kinds)s.")
                % {"number": number, "kind": kind, "kinds": ", ".join(self._kinds)}
            )
        if not isinstance(content, dict):
            raise UnusableDefinition(
                gettext("Step %(number)s: what %(kind)s holds is an object.") % {"number": number, "kind": kind}
            )
        self._kinds[kind](number, content)

    def parts(self) -> tuple[Part, ...]:
        """What was taken, the results of each stage settled."""
        drafts = [made for made in self._made if isinstance(made, _Draft)]
        if not drafts:
            raise UnusableDefinition(gettext("The pipeline runs no model: add a ModelInference step."))
        parts = tuple(
            made if isinstance(made, Checks) else made.stage(is_last=made is drafts[-1]) for made in self._made
        )
        _refuse_recorded_twice(parts)
        return parts

    def _inference(self, number: int, content: dict[str, Any]) -> None:
        models = content.get("models")
        if not isinstance(models, list) or not 1 <= len(models) <= MODEL_LIMIT:
            raise UnusableDefinition(
                gettext('Step %(number)s names 1 to %(model_limit)s models: {"models": [{"name", "version"}]}.')
                % {"number": number, "model_limit": MODEL_LIMIT}
            )
        self._add(number, [_reference(number, model) for model in models])

    def _add(self, number: int, models: list[Reference], split: Split | None = None) -> None:
        versions = [model.version for model in models]
        if len(set(versions)) != len(versions):
            raise UnusableDefinition(gettext("Step %(number)s names a model version twice.") % {"number": number})
        alive = [0] if split else list(range(len(models)))
        self._made.append(_Draft(number, tuple(models), split, alive))

    def _random_split(self, number: int, content: dict[str, Any]) -> None:
        arms = content.get("weights")
        if not isinstance(arms, list) or not 1 <= len(arms) <= MODEL_LIMIT or not all(map(_is_arm, arms)):
            raise UnusableDefinition(
                gettext(
                    'Step %(number)s splits by 1 to %(model_limit)s weights: {"weights": [{"model", '
                    '"weight"}]}, each weight a number of 0 or more.'
                )
                % {"number": number, "model_limit": MODEL_LIMIT}
            )
        weights = tuple(float(arm["weight"]) for arm in arms)
        if not sum(weights) > 0:
            raise UnusableDefinition(
                gettext("Step %(number)s: the weights are all 0, so no model would run.") % {"number": number}
            )
        key = content.get("hash_key")
        if key is not None and (not isinstance(key, str) or not key):
            raise UnusableDefinition(
                gettext('Step %(number)s: "hash_key" is the name of a column, or null.') % {"number": number}
            )
        self._add(number, [_reference(number, arm["model"]) for arm in arms], Split(key, weights))

    def _value_split(self, number: int, content: dict[str, Any]) -> None:
        key, routes = content.get("split_key"), content.get("routes")
        if not isinstance(key, str) or not key:
            raise UnusableDefinition(
                gettext('Step %(number)s: "split_key" is the name of a column.') % {"number": number}
            )
        if not isinstance(routes, dict) or not 1 <= len(routes) <= 1000:
            raise UnusableDefinition(
                gettext('Step %(number)s has 1 to 1000 routes: {"routes": {"value": {"name", "version"}}}.')
                % {"number": number}
            )
        models = [_reference(number, content.get("control"))]
        places = {}
        for value, told in routes.items():
            model = _reference(number, told)
            if model not in models:
                models.append(model)
            places[value] = models.index(model)
        if len(models) > MODEL_LIMIT:
            raise UnusableDefinition(
                ngettext(
                    "Step %(number)s routes to %(count)s models, at most %(model_limit)s are possible.",
                    "Step %(number)s routes to %(count)s models, at most %(model_limit)s are possible.",
                    len(models),
                )
                % {"number": number, "count": len(models), "model_limit": MODEL_LIMIT}
            )
        self._add(number, models, Split(key, routes=places))

    def _before(self, number: int, kind: str) -> _Draft:
        drafts = [made for made in self._made if isinstance(made, _Draft)]
        if not drafts:
            raise UnusableDefinition(
                gettext("Step %(number)s is a %(kind)s and has no model step before it.")
                % {"number": number, "kind": kind}
            )
        return drafts[-1]

    def _audit(self, number: int, content: dict[str, Any]) -> None:
        draft = self._before(number, "AuditResults")
        start, end = content.get("from"), content.get("to")
        if not _is_place(start) or not (end is None or (_is_place(end) and end > start)):
            raise UnusableDefinition(
                gettext('Step %(number)s: "from" is a whole number of 0 or more, "to" a larger one or null.')
                % {"number": number}
            )
        chosen = draft.alive[start:end]
        if not chosen:
            raise UnusableDefinition(
                gettext("Step %(number)s records results from %(start)s on, but step %(before)s gives %(count)s.")
                % {"number": number, "start": start, "before": draft.number, "count": len(draft.alive)}
            )
        draft.audited = (draft.audited or set()) | set(chosen)

    def _nth(self, number: int, content: dict[str, Any]) -> None:
        draft = self._before(number, "Nth")
        index = content.get("index")
        if not isinstance(index, int) or not _is_place(index):
            raise UnusableDefinition(
                gettext('Step %(number)s: "index" is a whole number of 0 or more.') % {"number": number}
            )
        if index >= len(draft.alive):
            raise UnusableDefinition(
                gettext("Step %(number)s takes result %(index)s (from 0), but step %(before)s gives %(count)s.")
                % {"number": number, "index": index, "before": draft.number, "count": len(draft.alive)}
            )
        draft.alive = [draft.alive[index]]

    def _multi_out(self, number: int, content: dict[str, Any]) -> None:
        draft = self._before(number, "MultiOut")
        draft.audited = (draft.audited or set()) | set(draft.alive[1:])

    def _check(self, number: int, content: dict[str, Any]) -> None:
        rules = expressions.rules(number, content)
        for name, _ in rules:
            if name == RESERVED:
                raise UnusableDefinition(
                    gettext('Step %(number)s: a validation cannot be called "%(reserved)s": choose another name.')
                    % {"number": number, "reserved": RESERVED}
                )
            if name in self._names:
                raise UnusableDefinition(
                    gettext("Step %(number)s: there are two validations called %(name)r.")
                    % {"number": number, "name": name}
                )
            self._names.add(name)
        self._made.append(Checks(number, rules))


def _reference(number: int, told: object) -> Reference:
    name, version = (told.get("name"), told.get("version")) if isinstance(told, dict) else (None, None)
    if not (isinstance(name, str) and name and isinstance(version, str) and UUID.match(version)):
        raise UnusableDefinition(
            gettext('Step %(number)s names its models by "name" and "version" (the version\'s UUID).')
            % {"number": number}
        )
    sha = told.get("sha") if isinstance(told, dict) else None
    if not (sha is None or isinstance(sha, str)):
        raise UnusableDefinition(
            gettext('Step %(number)s: the "sha" of %(name)r is a text.') % {"number": number, "name": name}
        )
    return Reference(name, version, sha)


def _is_arm(arm: object) -> bool:
    weight = arm.get("weight") if isinstance(arm, dict) else None
    return isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight) and weight >= 0


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refuse_recorded_twice(parts: tuple[Part, ...]) -> None:
    seen: set[str] = set()
    for part in parts:
        for model in [part.models[place] for place in part.recorded] if isinstance(part, Stage) else []:
            if model.version in seen:
                raise UnusableDefinition(
                    gettext("Step %(step)s records model %(model)s a second time: record it once.")
                    % {"step": part.number, "model": model.name}
                )
            seen.add(model.version)


def models_of(parts: tuple[Part, ...]) -> list[tuple[int, Reference]]:
    """Every model with the number of its step, in order."""
    return [(part.number, model) for part in parts if isinstance(part, Stage) for model in part.models]


def answering(parts: tuple[Part, ...]) -> list[Reference]:
    """The model of each stage whose outputs go on; of a split, the first."""
    return [part.models[part.answers] for part in parts if isinstance(part, Stage)]


def references_in(step: dict[str, Any]) -> list[dict[str, Any]]:
    """The `{"name", "version", "sha"}` of a checked step, as they stand in it, in order."""
    kind, content = next(iter(step.items()))
    if kind == "ModelInference":
        return list(content["models"])
    if kind == "RandomSplit":
        return [arm["model"] for arm in content["weights"]]
    return [content["control"], *content["routes"].values()] if kind == "MetaValueSplit" else []


def with_shas(steps: list[dict[str, Any]], shas: Mapping[str, str]) -> list[dict[str, Any]]:
    """The steps with every model's file named; `shas` by version. Keys that mean nothing are left out of the models."""
    try:
        made = copy.deepcopy(steps)
    except RecursionError:
        raise UnusableDefinition(gettext("The steps are nested too deep.")) from None
    for reference in (model for step in made for model in references_in(step)):
        name, version = reference["name"], reference["version"]
        reference.clear()
        reference |= {"name": name, "version": version, "sha": shas[version]}
    return made
