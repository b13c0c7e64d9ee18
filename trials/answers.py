"""An engine's answer as people read it. Pure."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from logs.display import Row, shown

MOST_ROWS = 100
LONGEST = 256 * 1024  # characters of the whole answer that are shown


@dataclass(frozen=True)
class Answer:
    """`rows` are the first of `count`; `elapsed_ms` is what the pipeline took for all; `whole` is the JSON, cut."""

    rows: list[Row]
    count: int
    anomalies: int
    elapsed_ms: float
    whole: str


def of_json(answer: bytes) -> Answer:
    """Reads the records that the engine wrote."""
    records: list[dict[str, Any]] = json.loads(answer)
    anomalies = sum(1 for record in records if (record["anomaly"] or {}).get("count"))
    elapsed = sum(records[0]["metadata"]["elapsed"]) / 1e6 if records else 0.0
    whole = json.dumps(records[:MOST_ROWS], indent=2)
    return Answer([_row(record) for record in records[:MOST_ROWS]], len(records), anomalies, elapsed, whole[:LONGEST])


def _row(record: dict[str, Any]) -> Row:
    return shown({**record, "time": datetime.fromtimestamp(record["time"] / 1000, UTC)})
