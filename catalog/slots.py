"""Steps of a definition as parts of a form, and back. Pure: what the steps mean is `definitions`' matter.

A form shows a slot a step. What a slot cannot show stays JSON, so no step of a version is lost by editing it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from catalog.models import ModelVersion
from common.errors import Invalid

KINDS = {
    "model": _("Models"),
    "split": _("Random split"),
    "routes": _("Split by a value"),
    "check": _("Validations"),
    "json": _("Any step, as JSON"),
}
OPERATORS = (">", ">=", "<", "<=", "==", "!=")
SPARE = 2  # arms, at least, of an empty split
Step = dict[str, Any]


@dataclass
class Slot:
    """A step in the form: `kind` says which of the other fields count. Models are version UUIDs."""

    kind: str
    model: str = ""
    shadows: list[str] = field(default_factory=list)
    key: str = ""
    arms: list[tuple[str, str]] = field(default_factory=list)  # model and weight, or value and model
    rules: list[tuple[str, str, str, str]] = field(default_factory=list)  # name, field, operator, value
    text: str = ""

    @property
    def title(self) -> str:
        """What people call it."""
        return str(KINDS[self.kind])

    def with_spares(self) -> "Slot":
        """With an empty line to fill in; a split has two arms at least."""
        if self.kind in {"split", "routes"}:
            least = SPARE if self.kind == "split" else 1
            self.arms += [("", "")] * max(1, least - len(self.arms))
        if self.kind == "check":
            self.rules.append(("", "", ">", ""))
        return self


def of_steps(steps: list[Step]) -> list[Slot]:
    """The slots that show these steps."""
    return [_slot(step) for step in steps]


def of_form(given: QueryDict) -> list[Slot]:
    """The slots that were sent."""
    kinds = [kind if kind in KINDS else "json" for kind in given.getlist("kind")]
    return [_sent(given, kind, f"s{place}-") for place, kind in enumerate(kinds)]


def steps_of(slots: list[Slot], usable: Mapping[str, ModelVersion]) -> list[Step]:
    """The steps that the slots mean; those that are empty are left out. Raises `Invalid` that names the step."""
    found = [_step(slot, number, usable) for number, slot in enumerate(slots, start=1)]
    return [step for step in found if step is not None]


def _slot(step: Step) -> Slot:
    kind, content = next(iter(step.items()))
    if kind == "ModelInference":
        first, *others = [model["version"] for model in content["models"]]
        return Slot("model", model=first, shadows=others)
    if kind == "RandomSplit":
        arms = [(arm["model"]["version"], f"{arm['weight']:g}") for arm in content["weights"]]
        return Slot("split", key=content.get("hash_key") or "", arms=arms)
    if kind == "MetaValueSplit":
        arms = [(value, model["version"]) for value, model in content["routes"].items()]
        return Slot("routes", model=content["control"]["version"], key=content["split_key"], arms=arms)
    if kind == "Check" and not content.get("tree") and content.get("rules"):
        rules = [
            (name, rule["field"], rule["op"], json.dumps(rule["value"])) for name, rule in content["rules"].items()
        ]
        return Slot("check", rules=rules)
    return Slot("json", text=json.dumps(step, indent=2))


def _sent(given: QueryDict, kind: str, prefix: str) -> Slot:
    def many(name: str) -> list[str]:
        return [text.strip() for text in given.getlist(prefix + name)]

    def one(name: str) -> str:
        return (given.get(prefix + name, "") or "").strip()

    rules = zip(many("rule"), many("field"), many("op"), many("value"), strict=False)
    return Slot(
        kind,
        model=one("model"),
        shadows=[uuid for uuid in many("shadow") if uuid],
        key=one("key"),
        arms=[arm for arm in zip(many("arm"), many("arm-to"), strict=False) if any(arm)],
        rules=[rule for rule in rules if rule[0] or rule[1] or rule[3]],
        text=one("json"),
    )


def _step(slot: Slot, number: int, usable: Mapping[str, ModelVersion]) -> Step | None:
    def reference(uuid: str) -> dict[str, str]:
        if uuid not in usable:
            raise Invalid(gettext("Step %(number)s: choose a model version from the list.") % {"number": number})
        return {"name": usable[uuid].model.name, "version": uuid, "sha": usable[uuid].sha256}

    match slot.kind:
        case "model":
            chosen = [uuid for uuid in dict.fromkeys([slot.model, *slot.shadows]) if uuid]
            return {"ModelInference": {"models": [reference(uuid) for uuid in chosen]}} if chosen else None
        case "split":
            arms = [{"model": reference(uuid), "weight": _weight(number, weight)} for uuid, weight in slot.arms]
            return {"RandomSplit": {"hash_key": slot.key or None, "weights": arms}} if arms else None
        case "routes":
            routes = {value: reference(uuid) for value, uuid in slot.arms}
            return {"MetaValueSplit": {"split_key": slot.key, "control": reference(slot.model), "routes": routes}}
        case "check":
            rules = {
                name: {"field": column, "op": operator, "value": _value(value)}
                for name, column, operator, value in slot.rules
            }
            if len(rules) < len(slot.rules):
                raise Invalid(gettext("Step %(number)s: each validation has a name of its own.") % {"number": number})
            return {"Check": {"rules": rules}} if rules else None
    return _parsed(number, slot.text) if slot.text else None


def _weight(number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise Invalid(gettext("Step %(number)s: a weight is a number of 0 or more.") % {"number": number}) from exc


def _value(text: str) -> Any:
    """A number or boolean where it reads as one, else the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _parsed(number: int, text: str) -> Step:
    try:
        step = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Invalid(gettext("Step %(number)s is not JSON.") % {"number": number}) from exc
    if not isinstance(step, dict):
        raise Invalid(
            gettext('Step %(number)s is an object of one key, its kind: {"ModelInference": {…}}.') % {"number": number}
        )
    return step
