"""What the engine tells of itself: to the center at check-in, to people and programs by `/status` and `/metrics`."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opsengine import identity, machine
from opsengine.center import Center
from opsengine.definition import ModelEntry
from opsengine.gate import Gate
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.pipeline import LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.settings import Settings
from opsengine.updater import Updater, Wanted

HOUR_MS = 3_600_000
LOCK = "lock"  # of PERSIST_DIR: there while an engine runs
RUNNING, ERROR = "Running", "Error"  # the documented values of `status`


@dataclass(frozen=True, slots=True)
class Brief:
    """What is wrong, and what is known of a pipeline that could not be brought in."""

    faults: tuple[str, ...] = ()
    location: str | None = None
    models: tuple[ModelEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model and why it cannot answer now, None where it can."""

    entry: ModelEntry
    fault: str | None

    @property
    def status(self) -> str:
        """As `/models` tells it."""
        return ERROR if self.fault else RUNNING


def models(current: LoadedPipeline | None, failed: Sequence[ModelEntry]) -> list[ModelState]:
    """The models that are served; while nothing is, those of the pipeline that could not be brought in."""
    if current is None:
        return [ModelState(entry, "its pipeline could not be brought in") for entry in failed]
    down = current.down()
    return [ModelState(entry, down.get(entry.version)) for entry in current.definition.models]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the center refused last, and when (epoch ms)."""

    at: int
    code: str
    message: str


@dataclass(slots=True)
class Contact:
    """With the center. Times are epoch ms: `last` by this clock, `lapses_at` by the center's."""

    wanted: Wanted | None = None  # what it said last
    last: int | None = None
    lapses_at: int | None = None
    problem: str | None = None  # why it cannot be reached now
    refusal: Refusal | None = None
    held: str | None = None  # why it takes no log rows for now


class Reporter:
    """Reads the state of all parts; changes nothing."""

    def __init__(
        self,
        settings: Settings,
        plane: DataPlane,
        updater: Updater,
        contact: Contact,
        center: Center | None,
        log: tuple[LogStore, LogWriter],
        gate: Gate,
    ) -> None:
        self._settings = settings
        self._plane = plane
        self._updater = updater
        self._contact = contact
        self._center = center
        self._log_store, self._writer = log
        self._gate = gate
        self._started_at = int(time.time() * 1000)

    def checkin(self) -> dict[str, object]:
        """contract/checkin.request.json"""
        counters, log, disk = self._plane.counters, self._log_store.position, self._disk()
        return {
            "serving": self._serving(),
            "update": self._update(),
            "engine": {**identity.engine_facts(), "started_at": self._started_at},
            "counters": {"requests": counters.requests, "rows": counters.rows, "errors": counters.errors},
            "logs": {"epoch": log.epoch, "last_sequence": log.last, "acked": log.acked, "shed": log.shed},
            "disk": {"free": disk["free"], "total": disk["total"]},
            "resources": {"cpus": self._settings.cpus, **_memory()},
            "clock": int(time.time() * 1000),
        }

    def facts(self) -> dict[str, Any]:
        """Everything of `/status.json`; times are epoch ms, sizes bytes."""
        counters, log, now = self._plane.counters, self._log_store.position, int(time.time() * 1000)
        contact, wanted = self._contact, self._contact.wanted or Wanted(self._settings.pipeline_url)
        return {
            "now": now,
            "engine": {
                **identity.engine_facts(),
                "started_at": self._started_at,
                "uptime_seconds": (now - self._started_at) // 1000,
                "cpus": self._settings.cpus,
                "memory": {"used": machine.memory_used(), "limit": machine.memory_limit()},
            },
            "edge": self._edge(),
            "serving": self._serving(),
            "models": self._models(),
            "wanted": asdict(wanted),
            "update": self._update(),
            "contact": {
                "last": contact.last,
                "lapses_at": contact.lapses_at,
                "hours_left": self._hours_left(contact),
                "problem": contact.problem,
                "refusal": asdict(contact.refusal) if contact.refusal else None,
            },
            "clock": {"offset_ms": self._center.clock_offset if self._center and contact.last else None},
            "logs": {
                "epoch": log.epoch,
                "last": log.last,
                "acked": log.acked,
                "backlog": log.last - log.acked,
                "shed": log.shed,
                "bytes": self._log_store.used,
                "limit": self._settings.storage_bytes,
                "fault": self._writer.fault,
                "held": contact.held,
            },
            "disk": self._disk(),
            "traffic": {
                "requests": counters.requests,
                "rows": counters.rows,
                "errors": counters.errors,
                "waiting": self._gate.waiting,
                "refused": self._gate.refused,
            },
        }

    def brief(self) -> Brief:
        """For what is asked in the server's loop: without the lock of the log, which a slow disk may hold for long."""
        failure, contact = self._updater.failure, self._contact
        held = f"Log rows are held here: {contact.held}" if contact.held else None
        faults = tuple(filter(None, (self._writer.fault, held, self._disk_fault())))
        if failure is None:
            return Brief(faults)
        wanted = contact.wanted or failure.wanted
        return Brief(faults, wanted.location, failure.models if wanted == failure.wanted else ())

    def _serving(self) -> dict[str, object] | None:
        current = self._plane.current
        if current is None:
            return None
        return {
            "digest": current.digest,
            "pipeline": current.facts.pipeline,
            "pipeline_version": current.facts.version,
            "since": current.since,
        }

    def _models(self) -> list[dict[str, object]]:
        return [
            {"name": one.entry.name, "version": one.entry.version, "status": one.status, "fault": one.fault}
            for one in models(self._plane.current, self.brief().models)
        ]

    def _update(self) -> dict[str, object]:
        failure = self._updater.failure
        stage = "failed" if self._updater.stage == "idle" and failure else self._updater.stage
        return {"state": stage, "error": failure.message if failure else None}

    def _edge(self) -> dict[str, object] | None:
        if self._center is None or self._settings.bundle is None:
            return None
        session = self._center.session
        return {
            "name": session.edge_name if session else self._settings.bundle.edge_name,
            "id": session.edge_id if session else None,
            "spiffe_id": session.spiffe_id if session else None,
            "center": self._settings.bundle.center_url,
        }

    def _hours_left(self, contact: Contact) -> float | None:
        if self._center is None or contact.lapses_at is None:
            return None
        return round(max(0, contact.lapses_at - self._center.now_ms()) / HOUR_MS, 2)

    def _disk(self) -> dict[str, Any]:
        """Nothing is free on a disk that was taken away: what is served needs none, so all else goes on."""
        try:
            disk = shutil.disk_usage(self._settings.persist_dir)
        except OSError:
            return {"free": 0, "total": 0, "fault": self._disk_fault()}
        return {"free": disk.free, "total": disk.total, "fault": self._disk_fault()}

    def _disk_fault(self) -> str | None:
        folder = self._settings.persist_dir
        try:
            os.stat(folder / LOCK)
        except OSError as error:
            return (
                f"PERSIST_DIR {folder} was taken away ({error.strerror}): "
                "put it back and start the engine again, or the log is lost."
            )
        return None


def _memory() -> dict[str, int]:
    return {"memory": machine.memory_limit(), "memory_used": machine.memory_used()}
