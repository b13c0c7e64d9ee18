"""Check-ins that wait to be written together: one that changes nothing costs no write of its own.

An edge is answered first and written a moment later, with all that called meanwhile, in one statement. What a process
holds when it is killed is lost, which is seconds of contacts: only edges whose stored contact is recent are held, so
none comes near the end of its session by that, and each tells everything again at its next check-in.
"""

import dataclasses
import functools
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error, close_old_connections, connection, transaction
from django.utils import timezone

from edges import sessions
from edges.models import Edge

logger = logging.getLogger(__name__)

# Edges written in one statement: few enough that nobody who wants one of these rows waits long.
BATCH = 200
# How old the stored contact of an edge may be whose next one is held, against the 7 days of a session.
RECENT = timedelta(hours=1)
# After that a check-in that could not be written is dropped: the edge has come again, or it was removed.
KEPT = timedelta(minutes=1)
# A row is written only while the edge is as it was when it was answered, so that a report never tells more than the
# edge knew: who was shut out, moved or joined anew meanwhile tells of itself at the next check-in. And only when no
# later report is there, which another process may have written.
STATEMENT = """
UPDATE {edges} SET
  last_contact = CASE WHEN last_contact > v.at THEN last_contact ELSE v.at END,
  session_lapses_at = CASE WHEN last_contact > v.at THEN session_lapses_at ELSE v.lapses END,
  report = v.report, serving_digest = v.serving
FROM {rows} AS v{columns}
WHERE {edges}.id = v.edge AND key_thumbprint = v.thumbprint AND publish_id = v.publish
  AND serving_digest = v.was_serving
  AND COALESCE({reported_at}, 0) <= v.reported_at AND removed_at IS NULL AND banned_at IS NULL {among}
"""
# All rows come as one parameter, because binding thousands would hold up the calls that are answered meanwhile.
COLUMNS = {
    "edge": "uuid",
    "at": "timestamptz",
    "lapses": "timestamptz",
    "report": "jsonb",
    "thumbprint": "text",
    "publish": "bigint",
    "was_serving": "text",
    "serving": "text",
    "reported_at": "bigint",
}


@dataclasses.dataclass(frozen=True, slots=True)
class CheckIn:
    """One that was answered: when, its report as it is stored, and what the center knew of the edge then."""

    edge_id: UUID
    at: datetime
    report: Mapping[str, Any]
    thumbprint: str
    publish_id: int
    was_serving: str
    serving: str


class _Waiting:
    """The check-ins that one process holds, the latest of each edge, and the thread that writes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[UUID, CheckIn] = {}
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, checkin: CheckIn) -> None:
        with self._lock:
            self._held[checkin.edge_id] = checkin
            # Dead in a process that was forked after it had begun.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="check-ins", daemon=True)
                self._thread.start()
        self._some.set()

    def take(self) -> list[CheckIn]:
        with self._lock:
            held, self._held = self._held, {}
        return list(held.values())

    def put_back(self, checkins: Sequence[CheckIn], now: datetime) -> None:
        with self._lock:
            for checkin in checkins:
                if checkin.at > now - KEPT:
                    self._held.setdefault(checkin.edge_id, checkin)
        self._some.set()

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(hold_seconds())
            self._some.clear()
            try:
                flush(timezone.now())
            except Exception:
                logger.exception("check-ins could not be written; tried again in %.1f s", hold_seconds())
            finally:
                close_old_connections()


_waiting = _Waiting()


def hold_seconds() -> float:
    """For how long check-ins are held; 0 when each is to be written at once.

    Never long beside the interval in which edges call, by which people are told that they are late.
    """
    return float(min(settings.EDGE_HOLD_SECONDS, settings.EDGE_CHECKIN_SECONDS / 2))


def hold(checkin: CheckIn) -> None:
    """Has a check-in written soon, instead of an earlier one of the same edge."""
    _waiting.add(checkin)


def write(checkins: Sequence[CheckIn]) -> int:
    """Writes check-ins now, one an edge; how many edges were still as they were answered."""
    with connection.cursor() as cursor:
        parameters = [json.dumps([_row(checkin) for checkin in checkins])]
        if connection.vendor == "postgresql":
            parameters.append(f"{{{','.join(str(checkin.edge_id) for checkin in checkins)}}}")
        cursor.execute(_statement(), parameters)
        return int(cursor.rowcount)


def flush(now: datetime) -> int:
    """Writes what this process holds; how many edges. Rows that others have locked wait for the next time."""
    held, written = _waiting.take(), 0
    while held:
        some, held = held[:BATCH], held[BATCH:]
        try:
            with transaction.atomic():
                free = _free(some)
                written += write([checkin for checkin in some if checkin.edge_id in free]) if free else 0
        except Error:
            _waiting.put_back([*some, *held], now)
            raise
        left = [checkin for checkin in some if checkin.edge_id not in free]
        if left:
            _waiting.put_back(left, now)
    return written


def forget() -> None:
    """Drops what this process holds."""
    _waiting.take()


def _free(checkins: Sequence[CheckIn]) -> set[UUID]:
    """Locks the rows of these edges that nobody else has locked: who waits for none cannot wait in a circle."""
    rows = Edge.objects.select_for_update(skip_locked=True, no_key=True).order_by("pk")
    return set(rows.filter(pk__in=[checkin.edge_id for checkin in checkins]).values_list("pk", flat=True))


def _row(checkin: CheckIn) -> dict[str, Any]:
    return {
        "edge": _text("id", checkin.edge_id),
        "at": _text("last_contact", checkin.at),
        "lapses": _text("session_lapses_at", checkin.at + sessions.SESSION_LIFE),
        "report": checkin.report,
        "thumbprint": checkin.thumbprint,
        "publish": checkin.publish_id,
        "was_serving": checkin.was_serving,
        "serving": checkin.serving,
        "reported_at": checkin.report["at"],
    }


def _text(field: str, value: Any) -> str:
    """A value as the database writes or reads it in a column of edges."""
    return str(Edge._meta.get_field(field).get_db_prep_save(value, connection))  # type: ignore[union-attr]


@functools.lru_cache(maxsize=1)
def _statement() -> str:
    if connection.vendor == "postgresql":
        rows = "jsonb_to_recordset(%s::jsonb)"
        columns = f"({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
        reported_at = "CAST({edges}.report->>'at' AS bigint)"
        # It cannot know how many rows are in the JSON, and would read the whole table for one.
        among = "AND {edges}.id = ANY(%s::uuid[])"
    else:
        found = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in COLUMNS)
        rows, columns, among = f"(SELECT {found} FROM json_each(%s))", "", ""
        reported_at = "json_extract({edges}.report, '$.at')"
    edges = connection.ops.quote_name(Edge._meta.db_table)
    text = STATEMENT.replace("{among}", among).replace("{reported_at}", reported_at)
    return text.format(edges=edges, rows=rows, columns=columns)
