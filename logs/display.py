"""Rows of logs as people read them."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

SHORT_LIST = 4
SHORT = 60  # characters of a value in the table; all of it is in the row's details


@dataclass(frozen=True)
class Cell:
    """A field's value: `kind` says what it is (number, text, boolean, list, object, null), `text` is short."""

    name: str
    text: str
    kind: str


@dataclass(frozen=True)
class Row:
    """A line of the table. `whole` is all of it as JSON."""

    time: datetime
    edge: str
    model: str
    version: str
    inputs: list[Cell]
    outputs: list[Cell]
    anomalies: int
    failed: list[str]
    whole: str

    @property
    def milliseconds(self) -> str:
        """Of the time, which Django's date format cannot show."""
        return f"{self.time.microsecond // 1000:03}"


def shown(row: dict[str, Any]) -> Row:
    """A row as `queries.newest_rows` gives it."""
    whole = {**row, "time": row["time"].isoformat(timespec="milliseconds")}
    metadata = row["metadata"] or {}
    anomaly = row["anomaly"] or {}
    return Row(
        time=row["time"],
        edge=metadata.get("partition") or "",
        model=_model(metadata.get("last_model")),
        version=str(metadata.get("pipeline_version") or "")[:8],
        inputs=_cells(row["in"]),
        outputs=_cells(row["out"]),
        anomalies=anomaly.get("count") or 0,
        failed=[name for name, failed in anomaly.items() if name != "count" and failed],
        whole=json.dumps(_finite(whole), indent=2, default=str),
    )


def _model(last_model: Any) -> str:
    """The name in `metadata.last_model`, a JSON text that an engine wrote."""
    try:
        return str(json.loads(last_model)["model_name"])
    except (TypeError, ValueError, KeyError):
        return ""


def _cells(values: dict[str, Any] | None) -> list[Cell]:
    return [Cell(name, _short(value), _kind(value)) for name, value in (values or {}).items()]


def _kind(value: Any) -> str:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    kinds = ((bool, "boolean"), (int | float, "number"), (str, "text"), (list, "list"), (dict, "object"))
    return "null" if value is None else next((kind for known, kind in kinds if isinstance(value, known)), "text")


def _short(value: Any) -> str:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        more = [f"… {len(value)} values"] if len(value) > SHORT_LIST else []
        return f"[{', '.join([_short(item) for item in value[:SHORT_LIST]] + more)}]"
    if isinstance(value, float):
        return _number(value)
    text = "null" if value is None else str(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"


def _number(value: float) -> str:
    """A few decimals, and an exponent only where digits alone would mislead. A float32 keeps its few digits."""
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    if narrow == value and 1e-4 <= abs(value) < 1e15:
        return np.format_float_positional(narrow, unique=True, trim="-")
    if value and math.isfinite(value) and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.4g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are shown as words."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
