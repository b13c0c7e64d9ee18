"""The engine put together: starts its parts in order and stops them in order."""

import fcntl
import logging
import os
import socket
import threading
from pathlib import Path

from opsengine import __version__, local
from opsengine.agent import Agent
from opsengine.app import App
from opsengine.center import Center
from opsengine.errors import StateError
from opsengine.identity import Identity
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.plane import DataPlane
from opsengine.server import Server
from opsengine.settings import Settings
from opsengine.store import ContentStore
from opsengine.updater import Updater

logger = logging.getLogger(__name__)

# Together below the 10 seconds that Docker leaves between SIGTERM and SIGKILL.
DRAIN_SECONDS, FLUSH_SECONDS, SHIP_SECONDS, AGENT_SECONDS = 4.0, 2.5, 1.5, 0.5


class Engine:
    """One engine on one PERSIST_DIR."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.persist_dir
        self._stopping = threading.Event()
        self._fault: str | None = None
        self._guard = _lock(folder)
        self._log_store = LogStore(folder / "logs" / "rows.sqlite", settings.storage_bytes)
        self._writer = LogWriter(self._log_store, folder / "logs" / "taken")
        plane = DataPlane(self._writer.put, settings.max_body)
        log = (self._log_store, self._writer)
        self._server = Server(App(plane, log, settings.max_body), settings.host, settings.port)
        center = Center(settings.bundle, Identity(folder / "identity")) if settings.bundle else None
        self._agent = Agent(settings, plane, center, log, self._fail)
        store = ContentStore(folder / "store")
        if settings.pipeline_dir:
            local.lend(settings.pipeline_dir, store)
        self._updater = Updater(settings, store, plane, folder / "served.json", self._agent.poke)
        self._updater.partition = settings.bundle.edge_name if settings.bundle else socket.gethostname()

    def run(self) -> int:
        """Serve until `stop` is called or there is nothing to serve; returns the exit code."""
        logger.info("OpsCenter engine %s", __version__)
        self._writer.start()
        self._server.start()
        self._agent.start(self._updater)
        self._stopping.wait()
        self._shut_down()
        if self._fault:
            logger.critical(self._fault)
            return 1
        return 0

    def stop(self) -> None:
        """Ask for an orderly end; may be called from a signal handler."""
        self._stopping.set()

    def _fail(self, fault: str) -> None:
        self._fault = fault
        self._stopping.set()

    def _shut_down(self) -> None:
        """Requests under way are answered first, then their rows written, then shipped if the center is near."""
        if not self._server.stop(DRAIN_SECONDS):
            logger.warning("Requests were still under way after %g seconds and are cut off", DRAIN_SECONDS)
        self._agent.stop(AGENT_SECONDS)
        self._writer.stop(FLUSH_SECONDS)
        shipper = self._agent.shipper
        if shipper:
            shipper.stop(SHIP_SECONDS)
        if shipper is None or not shipper.is_alive:
            self._log_store.close()
        os.close(self._guard)


def _lock(folder: Path) -> int:
    """Hold PERSIST_DIR for this process. Raises StateError if it cannot be written or another engine has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(
            f"PERSIST_DIR {folder} cannot be written ({error.strerror}): mount a volume there, or set PERSIST_DIR."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StateError(f"PERSIST_DIR {folder} is in use by another engine: give each its own.") from None
    return descriptor
