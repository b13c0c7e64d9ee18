"""An engine's answer as people read it. Pure."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from logs.display import Row, shown

MOST_ROWS = 100
LONGEST = 256 * 1024  # characters of the whole answer that are shown
# A tensor's innermost list as `json.dumps` indents it, a number a line. Within texts a new line is an escape.
INNERMOST = re.compile(r"\[\n\s+([^][{}\"]+)\n\s+\]")


@dataclass(frozen=True)
class Answer:
    """`rows` are the first of `count`; `elapsed_ms` is what the pipeline took for all; `whole` is their JSON.

    `is_cut` says that `whole` is only the beginning.
    """

    rows: list[Row]
    count: int
    anomalies: int
    elapsed_ms: float
    whole: str
    is_cut: bool


def of_json(answer: bytes) -> Answer:
    """Reads the records that the engine wrote."""
    records: list[dict[str, Any]] = json.loads(answer)
    anomalies = sum(1 for record in records if (record["anomaly"] or {}).get("count"))
    elapsed = sum(records[0]["metadata"]["elapsed"]) / 1e6 if records else 0.0
    rows = [_row(record) for record in records[:MOST_ROWS]]
    whole = _indented(records[:MOST_ROWS])
    return Answer(rows, len(records), anomalies, elapsed, whole[:LONGEST], len(whole) > LONGEST)


def _indented(records: list[dict[str, Any]]) -> str:
    """As JSON, with the numbers of a tensor's row beside each other."""
    return INNERMOST.sub(lambda found: f"[{' '.join(found[1].split())}]", json.dumps(records, indent=2))


def _row(record: dict[str, Any]) -> Row:
    return shown({**record, "time": datetime.fromtimestamp(record["time"] / 1000, UTC)})
