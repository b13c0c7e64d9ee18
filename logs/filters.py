"""Which rows a reader wants, as an address says it in its parameters: one reading for REST, pages and exports."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from django.db.models import Q
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext

from common.errors import Invalid
from logs import conditions
from logs.conditions import BoundsOf, Column, Comparison, Condition

LATEST_MS = 253_402_300_799_999
MAX_NAMES = 1000
MAX_NAME = 256
MAX_CONDITIONS = 20
MAX_VERSIONS = 100
COUNT = "count"  # a reserved name: no validation is called so

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Filters:
    """All that are given must hold; of several names in one of them, any.

    `edges` are names, or patterns with `*` (any characters) and `?` (one). `models` are names or patterns of the model
    that answered, or its SHA-256. `anomalies` are names of validations that failed, `count` for any. `conditions` are
    texts as in `logs.conditions`. Times are both included.
    """

    start: datetime | None = None
    end: datetime | None = None
    edges: tuple[str, ...] = ()
    pipeline_versions: tuple[UUID, ...] = ()
    models: tuple[str, ...] = ()
    anomalies: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises `Invalid` for conditions that cannot be read, so that none is found out about while rows are."""
        _ = self._condition

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> "Filters":
        """From the parameters `start`, `end`, `edge`, `pipeline_version`, `model`, `anomaly` and `filter`; all but the
        first two may be repeated. Empty ones, which forms send, are not there. Raises `Invalid`.
        """
        return cls(
            start=_moment(given, "start"),
            end=_moment(given, "end"),
            edges=_names(given, "edge"),
            pipeline_versions=tuple(_uuid(text) for text in _texts(given, "pipeline_version", MAX_VERSIONS)),
            models=_names(given, "model"),
            anomalies=_names(given, "anomaly"),
            conditions=_texts(given, "filter", MAX_CONDITIONS),
        )

    def as_query(self) -> dict[str, list[str]]:
        """The parameters that `parse` makes these filters of, for links and to be kept."""
        found = {
            "start": [self.start.isoformat()] if self.start else [],
            "end": [self.end.isoformat()] if self.end else [],
            "edge": list(self.edges),
            "pipeline_version": [str(version) for version in self.pipeline_versions],
            "model": list(self.models),
            "anomaly": list(self.anomalies),
            "filter": list(self.conditions),
        }
        return {name: texts for name, texts in found.items() if texts}

    @property
    def is_any(self) -> bool:
        """Whether something is asked of rows beyond their time."""
        return bool(self.edges or self.pipeline_versions or self.models or self.anomalies or self.conditions)

    def partitions(self, field: str = "partition") -> Q:
        """The condition on a field that holds the name of an edge."""
        exact = [name for name in self.edges if not is_pattern(name)]
        found = Q(**{f"{field}__in": exact}) if exact else Q()
        for pattern in self.edges:
            if is_pattern(pattern):
                found |= Q(**{f"{field}__regex": f"^{_regex(pattern)}$"})
        return found

    def wants_edge(self, name: str | None) -> bool:
        """Whether rows of that edge are asked for."""
        return not self.edges or _is_one_of(name, self.edges)

    def mask(self, table: pa.Table) -> Mask:
        """For each row of a page or segment, with all its columns, whether it is asked for."""
        wanted = np.ones(len(table), dtype=bool)
        if self.edges:
            wanted &= _where(table, "partition", lambda name: _is_one_of(name, self.edges))
        if self.pipeline_versions:
            uuids = {str(version) for version in self.pipeline_versions}
            wanted &= _where(table, "pipeline_version", uuids.__contains__)
        if self.models:
            wanted &= _where(table, "last_model", self._is_of_model)
        if self._condition is not None and wanted.any():
            wanted &= self._condition.test(table).fill_null(False).to_numpy(zero_copy_only=False)
        return wanted

    def looks_at(self, group: str) -> bool:
        """Whether a column of rows decides which are asked for."""
        if group == "metadata" and (self.edges or self.pipeline_versions or self.models):
            return True
        return self._condition is not None and group in self._condition.groups()

    def may_hold(self, bounds: BoundsOf) -> bool:
        """Whether rows with columns of these bounds may be asked for; see `logs.conditions.Condition`."""
        return self._condition is None or self._condition.may_hold(bounds)

    @cached_property
    def _condition(self) -> Condition | None:
        parts = [conditions.parse(text) for text in self.conditions]
        if self.anomalies:
            failed: list[Condition] = [_failed(name) for name in self.anomalies]
            parts.append(failed[0] if len(failed) == 1 else conditions.Either(tuple(failed)))
        return conditions.Every(tuple(parts)) if parts else None

    def _is_of_model(self, last_model: str) -> bool:
        try:
            model = json.loads(last_model)
            return _is_one_of(model["model_name"], self.models) or model.get("model_sha") in self.models
        except (ValueError, TypeError, KeyError, AttributeError):
            return False  # an engine wrote it: it may be anything


def is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def moment(text: str) -> datetime:
    """ISO 8601 (UTC unless it has an offset), or epoch milliseconds as rows have them. Raises `ValueError`."""
    if text.isascii() and text.isdigit() and int(text[:18]) <= LATEST_MS:
        return datetime.fromtimestamp(int(text) // 1000, UTC).replace(microsecond=int(text) % 1000 * 1000)
    found = parse_datetime(text.replace(" ", "+") if "T" in text else text)  # a "+" of an address that nobody escaped
    if found is None:
        found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _failed(name: str) -> Condition:
    column = Column("anomaly", (name,))
    return Comparison(column, ">", 0) if name == COUNT else Comparison(column, "=", True)


def _texts(given: Mapping[str, object], name: str, most: int) -> tuple[str, ...]:
    getlist = getattr(given, "getlist", None)  # an address may repeat a name, JSON has a list
    found = getlist(name) if getlist else given.get(name)
    texts = [str(one) for one in (found if isinstance(found, list | tuple) else [found]) if one is not None]
    texts = [text.strip() for text in texts if text.strip()]
    if len(texts) > most:
        raise Invalid(gettext("%(name)s may be given at most %(most)s times.") % {"name": name, "most": most})
    if any("\0" in text for text in texts):
        raise Invalid(gettext("%(name)s has a NUL character.") % {"name": name})
    return tuple(texts)


def _names(given: Mapping[str, object], name: str) -> tuple[str, ...]:
    texts = _texts(given, name, MAX_NAMES)
    for text in texts:
        if len(text) > MAX_NAME:
            raise Invalid(
                gettext("%(name)s may have at most %(max_name)s characters.") % {"name": name, "max_name": MAX_NAME}
            )
    return texts


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as exc:
        raise Invalid(gettext("pipeline_version must be a UUID, not %(text)r.") % {"text": text[:60]}) from exc


def _moment(given: Mapping[str, object], name: str) -> datetime | None:
    texts = _texts(given, name, MAX_NAMES)
    if not texts:
        return None
    try:
        return moment(texts[-1])
    except (ValueError, OverflowError) as exc:
        raise Invalid(
            gettext("%(name)s must be ISO 8601 or epoch milliseconds, not %(text)r.")
            % {"name": name, "text": texts[-1][:60]}
        ) from exc


def _regex(pattern: str) -> str:
    """What Python, PostgreSQL and SQLite (by Django) read alike."""
    return "".join(".*" if part == "*" else "." if part == "?" else re.escape(part) for part in pattern)


def _is_one_of(name: object, wanted: tuple[str, ...]) -> bool:
    return isinstance(name, str) and any(
        re.fullmatch(_regex(one), name) is not None if is_pattern(one) else one == name for one in wanted
    )


def _where(table: pa.Table, field: str, is_wanted: Callable[[str], bool]) -> Mask:
    """The rows whose `metadata` field is wanted; each distinct text is looked at once."""
    column = pc.struct_field(conditions.whole(table.column("metadata")), field)
    encoded = column.dictionary_encode()
    answers: Mask = np.array([is_wanted(text) for text in encoded.dictionary.to_pylist()] + [False])
    found_mask: Mask = answers[encoded.indices.fill_null(len(answers) - 1).to_numpy()]
    return found_mask
