"""Runs the models of one step: one, several on the same rows (shadows), or one a row (splits)."""

import hashlib
import logging
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import orjson

from opsengine import connections, fields
from opsengine.batching import portions
from opsengine.connections import Signature
from opsengine.errors import RequestError
from opsengine.fields import Array, Field, fit
from opsengine.runtime import Model
from opsengine.steps import Split, Stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A model in its place: `run` is the model's, or that of the batcher in front of it.

    `most`: rows that may run at once where they are of several requests.
    """

    label: str
    model: Model
    signature: Signature
    run: Callable[[dict[str, Array]], dict[str, Field]]
    most: int

    def inputs(
        self, columns: Mapping[str, Field], prepared: dict[str, Array], keys: frozenset[str], *, is_first: bool
    ) -> dict[str, Array]:
        """The model's inputs from columns. `prepared` keeps columns as they were converted, and is used before them.

        Raises RequestError naming a wrong column. `keys` are columns that only splits read.
        """
        made = {}
        candidates = [name for name in columns if name not in keys] if keys else columns
        for at, node in enumerate(self.model.inputs):
            name = connections.source(at, self.signature, candidates, is_first=is_first)
            if name not in columns:
                raise RequestError(
                    f'Column "{name}" is missing: model {self.signature.name} needs it (got {_few(columns)}).'
                )
            known = prepared.get(name)
            array = known if known is not None and known.dtype == node.dtype else node.prepare(columns[name], name)
            prepared.setdefault(name, array)
            made[node.name] = fit(array, node.shape, name)
        return made


def _few(columns: Mapping[str, Field]) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a stage made: outputs that go on, those recorded by label, after a split the place of the model a row."""

    outputs: dict[str, Field]
    recorded: dict[str, dict[str, Field]]
    prepared: dict[str, Array]
    arms: Array | None = None


class LoadedStage:
    """A stage with its models in memory."""

    def __init__(self, stage: Stage, nodes: tuple[Node, ...], keys: frozenset[str], *, is_first: bool) -> None:
        self.stage = stage
        self.nodes = nodes
        self._answering = nodes[stage.answers]
        self._keys = keys if is_first else frozenset()
        self._is_first = is_first
        self._chooser = _Chooser(stage.split, stage.number) if stage.split else None

    def run(
        self, columns: Mapping[str, Field], request: Mapping[str, Field], count: int, shares: Sequence[int] = ()
    ) -> Ran:
        """Run on `columns`; `request` holds the columns that a split's key is among. Raises RequestError.

        `shares` as in LoadedPipeline.answer.
        """
        if self._chooser:
            return self._split(self._chooser.arms(request, count), columns, count, shares)
        prepared: dict[str, Array] = {}
        outputs = self._run(self._answering, columns, prepared, shares)
        recorded = {}
        for place in self.stage.recorded:
            node = self.nodes[place]
            made = outputs if node is self._answering else self._shadow(node, columns, prepared, shares)
            if made is not None:
                recorded[node.label] = made
        return Ran(outputs, recorded, prepared)

    def reads_all(self, columns: Mapping[str, Field]) -> bool:
        """Whether there are no columns beside the inputs of the model that answers."""
        return len(columns) == len(self._answering.model.inputs)

    def _run(
        self, node: Node, columns: Mapping[str, Field], prepared: dict[str, Array], shares: Sequence[int]
    ) -> dict[str, Field]:
        inputs = node.inputs(columns, prepared, self._keys, is_first=self._is_first)
        sizes = portions(shares, node.most)
        if len(sizes) < 2:
            return node.run(inputs)
        at, made = 0, []
        for size in sizes:
            made.append(node.run({name: array[at : at + size] for name, array in inputs.items()}))
            at += size
        return {name: fields.end_to_end([part[name] for part in made]) for name in made[0]}

    def _shadow(
        self, node: Node, columns: Mapping[str, Field], prepared: dict[str, Array], shares: Sequence[int]
    ) -> dict[str, Field] | None:
        """A shadow that fails is left out: it must not cost the caller an answer."""
        try:
            return self._run(node, columns, dict(prepared), shares)
        except RequestError as error:
            logger.warning("Shadow model %s gave nothing: %s", node.label, error)
            return None

    def _split(self, arms: Array, columns: Mapping[str, Field], count: int, shares: Sequence[int]) -> Ran:
        """Rows go to their models and come together again in order."""
        prepared: dict[str, Array] = {}
        self.nodes[0].inputs(columns, prepared, self._keys, is_first=self._is_first)
        parts: list[tuple[Array, dict[str, Field]]] = []
        starts = [0, *accumulate(shares)][:-1]
        for place in np.unique(arms):
            chosen = np.flatnonzero(arms == place)
            some = {name: _taken(value, chosen, count) for name, value in columns.items()}
            ready = {name: value[chosen] for name, value in prepared.items()}
            of_each = np.add.reduceat(arms == place, starts, dtype=np.intp).tolist() if shares else ()
            made = self._run(self.nodes[place], some, ready, [own for own in of_each if own])
            parts.append((chosen, made))
        outputs = parts[0][1] if len(parts) == 1 else _together(parts, count)
        recorded = {self.nodes[0].label: outputs} if self.stage.recorded else {}
        return Ran(outputs, recorded, prepared, arms)


def _taken(field: Field, places: Array, count: int) -> Field:
    if len(places) == count:
        return field
    return field[places] if isinstance(field, np.ndarray) else [field[place] for place in places.tolist()]


def _together(parts: list[tuple[Array, dict[str, Field]]], count: int) -> dict[str, Field]:
    return {name: _joined([(places, made[name]) for places, made in parts], count) for name in parts[0][1]}


def _joined(parts: list[tuple[Array, Field]], count: int) -> Field:
    arrays = [value for _, value in parts if isinstance(value, np.ndarray)]
    if len(arrays) == len(parts) and len({(array.dtype.str, array.shape[1:]) for array in arrays}) == 1:
        whole = np.empty((count, *arrays[0].shape[1:]), arrays[0].dtype)
        for places, value in parts:
            whole[places] = value
        return whole
    rows: list[object] = [None] * count
    for places, value in parts:
        for place, row in zip(places.tolist(), value.tolist() if isinstance(value, np.ndarray) else value, strict=True):
            rows[place] = row
    return rows


class _Chooser:
    """Which model takes a row."""

    def __init__(self, split: Split, number: int) -> None:
        self._split = split
        self._number = number
        total = sum(split.weights)
        self._bounds = [bound / total for bound in accumulate(split.weights)][:-1]

    def arms(self, request: Mapping[str, Field], count: int) -> Array:
        """The place of the model for each row. Raises RequestError if a sticky split's column is missing."""
        key, routes = self._split.key, self._split.routes
        if routes is not None and key is not None:
            texts = _texts(request[key]) if key in request else [None] * count
            return np.array([routes.get(text, 0) if text is not None else 0 for text in texts], dtype=np.intp)
        if key is None:
            points = [random.random() for _ in range(count)]
        elif key in request:
            points = [_point(text) for text in _texts(request[key])]
        else:
            raise RequestError(f'Column "{key}" is missing: step {self._number} chooses the model by it.')
        return np.array([bisect_right(self._bounds, point) for point in points], dtype=np.intp)


def _point(text: str | None) -> float:
    """A place in [0, 1) that is the same for the same value, on every engine and after every restart."""
    digest = hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _texts(field: Field) -> list[str | None]:
    values = field.tolist() if isinstance(field, np.ndarray) else field
    return [_text(value) for value in values]


def _text(value: object) -> str | None:
    """JSON 5, Arrow 5.0 and "5" are the same key; a list of one value is that value."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _other(value)


def _other(value: object) -> str:
    return orjson.dumps(_plain(value), default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: object) -> object:
    """With whole numbers as such, also in lists: which of the two they were sent as is not seen in every body."""
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and abs(value) < fields.EXACT and value.is_integer() else value
