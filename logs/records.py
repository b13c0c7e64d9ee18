"""Pages of senders that have no Arrow: pandas records in JSON, as the engine's own `/logs` answers them.

They become the Arrow stream that the sender could have sent, and from there on are checked and kept like any other.
Types are found from the values: whole numbers int64, others double, so a column should not mix them from page to page.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from logs import pages, schemas
from logs.errors import InvalidPage, PageTooLarge

GROUPS = ("in", "out", "anomaly", "metadata")
SHADOW = "out_"  # rows of shadow models
METADATA = pa.struct(
    {
        "last_model": pa.string(),
        "pipeline_version": pa.string(),
        "elapsed": pa.list_(pa.int64()),
        "dropped": pa.list_(pa.string()),
        "partition": pa.string(),
    }
)

Row = dict[str, Any]


def to_stream(body: bytes, *, pipeline_version: str, partition: str) -> bytes:
    """The Arrow stream of a JSON list of records. Raises `InvalidPage` and `PageTooLarge`.

    A record has `time` (epoch ms or ISO 8601), `in` and `out`, and may have `anomaly`, `metadata` and `out_<model>`;
    these are objects, or flat names such as `in.tensor`. What metadata lacks is filled in.
    """
    try:
        told = json.loads(body, parse_constant=lambda text: float(text))
    except (ValueError, RecursionError) as exc:
        raise InvalidPage("The page is not JSON: send a list of records.") from exc
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise InvalidPage("The page must be a JSON list of records.")
    if len(told) > pages.MAX_ROWS:
        raise PageTooLarge(f"A page may hold at most {pages.MAX_ROWS} rows: send it in parts.", limit=pages.MAX_ROWS)
    if not told:
        raise InvalidPage("The page has no rows.")
    records = [_grouped(row, number) for number, row in enumerate(told, 1)]
    for record in records:
        record["anomaly"] = {"count": 0} | record.get("anomaly", {})
        record["metadata"] = _metadata(record.get("metadata", {}), pipeline_version, partition)
    names = ["time", *GROUPS, *sorted({name for record in records for name in record} - {"time", *GROUPS})]
    columns = {name: _column(name, [record.get(name) for record in records]) for name in names}
    return pages.encode(pa.table(columns))


def _grouped(row: Row, number: int) -> Row:
    """A record with an object for each group. Raises `InvalidPage`."""
    found: Row = {"in": {}, "out": {}}
    for name, value in row.items():
        group, dot, field = name.partition(".")
        if name == "time":
            found["time"] = _time(value, number)
        elif not (group in GROUPS or group.startswith(SHADOW)):
            raise InvalidPage(
                f"Record {number} has a column {name[:100]}: columns are time, in, out, anomaly, metadata."
            )
        elif dot:
            found.setdefault(group, {})[field] = value
        elif isinstance(value, dict):
            found.setdefault(group, {}).update(value)
        else:
            raise InvalidPage(f"Record {number}: {name[:100]} must be an object.")
    if "time" not in found:
        raise InvalidPage(f"Record {number} has no time.")
    return found


def _time(value: object, number: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as exc:
        raise InvalidPage(f"Record {number}: time must be epoch milliseconds or ISO 8601.") from exc
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _metadata(told: Row, pipeline_version: str, partition: str) -> Row:
    model = told.get("last_model", "")
    return {
        "last_model": model if isinstance(model, str) else json.dumps(model),
        "pipeline_version": told.get("pipeline_version", pipeline_version),
        "elapsed": told.get("elapsed") or [],
        "dropped": told.get("dropped") or [],
        "partition": told.get("partition", partition),
    }


def _column(name: str, values: list[Any]) -> pa.Array:
    kind = {"time": schemas.TIME, "metadata": METADATA}.get(name)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError, RecursionError) as exc:
        raise InvalidPage(f"The values of {name} are not of one type in all records: {str(exc)[:200]}") from exc
