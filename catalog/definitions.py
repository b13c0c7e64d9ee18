"""Checks what a pipeline version says it does, before it is made. Pure: what the models are is told by the caller."""

import re
from typing import Any

from catalog.errors import UnusableDefinition

# The step kinds of the definition language (the SDK's): those that engines run, and those known by name only.
SUPPORTED = {"ModelInference"}
KNOWN = SUPPORTED | {
    "RandomSplit",
    "MetaValueSplit",
    "AuditResults",
    "Nth",
    "MultiOut",
    "Check",
    "ColumnsSelect",
    "ColumnsToRows",
    "Average",
    "RowsToModels",
}
STEP_LIMIT = 64  # a chain of models, not a program
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def model_references(steps: Any) -> list[dict[str, str]]:
    """Every `{"name", "version", "sha"?}` in `steps`, in order. Raises `UnusableDefinition` that names the step."""
    if not isinstance(steps, list) or not steps:
        raise UnusableDefinition('"steps" is a list of at least one step.')
    if len(steps) > STEP_LIMIT:
        raise UnusableDefinition(f"A pipeline has at most {STEP_LIMIT} steps, this one has {len(steps)}.")
    return [_reference(number, step) for number, step in enumerate(steps, start=1)]


def _reference(number: int, step: Any) -> dict[str, str]:
    if not isinstance(step, dict) or len(step) != 1:
        raise UnusableDefinition(f'Step {number} is an object of one key, its kind: {{"ModelInference": {{…}}}}.')
    kind, content = next(iter(step.items()))
    if kind not in KNOWN:
        raise UnusableDefinition(f"Step {number} is of the unknown kind {kind!r}; known is ModelInference.")
    if kind not in SUPPORTED:
        raise UnusableDefinition(f"Step {number} is a {kind}, which engines do not run yet; ModelInference they do.")
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list) or len(models) != 1:
        raise UnusableDefinition(f'Step {number} names one model: {{"models": [{{"name", "version"}}]}}.')
    return _checked(number, models[0])


def _checked(number: int, model: Any) -> dict[str, str]:
    texts = isinstance(model, dict) and all(isinstance(value, str) for value in model.values())
    if not texts or not model.get("name") or not UUID.match(model.get("version", "")):
        raise UnusableDefinition(f'Step {number} names its model by "name" and "version" (the version\'s UUID).')
    return {key: model[key] for key in ("name", "version", "sha") if key in model}
