"""The engine put together: starts its parts in order and stops them in order."""

import fcntl
import logging
import os
import threading
import time
from pathlib import Path

from opsengine import __version__, memory, report
from opsengine.agent import Agent
from opsengine.app import App
from opsengine.center import Center
from opsengine.errors import InUse, StateError
from opsengine.gate import Gate
from opsengine.identity import Identity
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.metrics import Metrics
from opsengine.plane import DataPlane
from opsengine.recorder import Recorder
from opsengine.report import Reporter
from opsengine.server import Server
from opsengine.settings import Settings
from opsengine.steps import Stage
from opsengine.traffic import Traffic
from opsengine.updater import Updater
from opsengine.views import Views

logger = logging.getLogger(__name__)

# Requests that run at once. One would be fastest for small models, but a long run of a large one must not hold up all.
SLOTS = 2
BODIES = 2  # all bodies under way together take at most so many times MAX_BODY
# Together below the 10 seconds that Docker leaves between SIGTERM and SIGKILL.
DRAIN_SECONDS, FLUSH_SECONDS, SHIP_SECONDS, AGENT_SECONDS = 4.0, 2.5, 1.5, 0.5
END_SECONDS = 9.0  # all of it, also where a disk takes nothing: what it should have taken is in the journal


class Engine:
    """One engine on one PERSIST_DIR."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.persist_dir
        self._stopping = threading.Event()
        self._fault: str | None = None
        self._keeper = memory.Keeper()
        self._guard = lock(folder)
        self._log_store = LogStore(folder / "logs" / "rows.sqlite", settings.storage_bytes)
        self._writer = LogWriter(self._log_store, folder / "logs" / "taken")
        log = (self._log_store, self._writer)
        gate = Gate(SLOTS, settings.max_queue, BODIES * settings.max_body)
        metrics = Metrics(self._models)
        self._plane = DataPlane(
            Recorder(self._writer.take, metrics.result, settings.log_field_limit), settings.max_body
        )
        center = Center(settings.bundle, Identity(folder / "identity")) if settings.bundle else None
        traffic = Traffic(self._plane, gate, metrics, lambda digest, fine: self._updater.observe(digest, fine))
        self._agent = Agent(settings, self._plane, center, log, self._fail, lambda: traffic.is_pressed)
        self._updater = Updater(settings, self._plane, folder, self._agent.poke)
        self._reporter = Reporter(settings, self._plane, self._updater, self._agent.contact, center, log, gate)
        metrics.add(self._reporter.facts)
        app = App(
            self._plane,
            traffic,
            log,
            Views(self._reporter.facts, metrics.render, self._reporter.brief),
            settings.max_body,
        )
        self._server = Server(app, settings.host, settings.port, SLOTS, settings.max_queue)

    def _models(self) -> tuple[str, ...]:
        """What the times of a request are told of: the model that answers in each step, or `checks`."""
        current = self._plane.current
        parts = current.definition.parts if current else ()
        return tuple(part.models[part.answers].name if isinstance(part, Stage) else "checks" for part in parts)

    def run(self) -> int:
        """Serve until `stop` is called or there is nothing to serve; returns the exit code."""
        logger.info("OpsCenter engine %s", __version__)
        self._keeper.start()
        self._writer.start()
        self._server.start()
        self._agent.start(self._updater, self._reporter)
        self._stopping.wait()
        self._shut_down()
        if self._fault:
            logger.critical(self._fault)
            return 1
        return 0

    def stop(self) -> None:
        """Ask for an orderly end; may be called from a signal handler."""
        self._stopping.set()

    def roll_back(self) -> None:
        """Serve the publish before, beside the requests; may be called from a signal handler."""
        threading.Thread(target=self._updater.roll_back, name="rollback", daemon=True).start()

    def _fail(self, fault: str) -> None:
        self._fault = fault
        self._stopping.set()

    def _shut_down(self) -> None:
        """Requests under way are answered first, then their rows written, then shipped if the center is near."""
        end = time.monotonic() + END_SECONDS
        self._keeper.stop()
        if not self._server.stop(DRAIN_SECONDS):
            logger.warning("Requests were still under way after %g seconds and are cut off", DRAIN_SECONDS)
        self._agent.stop(AGENT_SECONDS)
        # In a thread of its own, which the end of the process does not wait for.
        keeping = threading.Thread(target=self._keep, name="end", daemon=True)
        keeping.start()
        keeping.join(max(0.0, end - time.monotonic()))
        if keeping.is_alive():
            logger.warning(
                "The disk of PERSIST_DIR is too slow: the next start finds what was not stored in the journal"
            )

    def _keep(self) -> None:
        try:
            self._put_away()
        except Exception:  # nobody else hears of it in this thread
            logger.exception("the end was not in order")
            self._fault = "The engine did not end in order: see its log."

    def _put_away(self) -> None:
        """What takes as long as the disk does."""
        self._updater.stop()
        self._writer.stop(FLUSH_SECONDS)
        shipper = self._agent.shipper
        if shipper:
            shipper.stop(SHIP_SECONDS)
        if shipper is None or not shipper.is_alive:
            self._log_store.close()
        os.close(self._guard)


def lock(folder: Path) -> int:
    """Hold PERSIST_DIR for this process. Raises StateError if it cannot be written or another engine has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / report.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(
            f"PERSIST_DIR {folder} cannot be written by user {os.geteuid()} ({error.strerror}): "
            "mount a volume there that this user may write to, or set PERSIST_DIR."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InUse(f"PERSIST_DIR {folder} is in use by another engine: give each its own.") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def holder(folder: Path) -> int | None:
    """The process that holds PERSIST_DIR, None where that is not told."""
    text = (folder / report.LOCK).read_text()
    return int(text) if text.isdigit() else None
