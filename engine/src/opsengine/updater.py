"""Brings a wanted pipeline into memory: pull, load and warm beside the old one, swap, tidy the store."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from opsengine import fetch, pipeline, state, transport
from opsengine.errors import EngineError, RegistryUnavailable
from opsengine.plane import DataPlane
from opsengine.settings import Settings
from opsengine.state import Publish
from opsengine.store import ContentStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be served: by digest where the center said so, else whatever is at the location."""

    location: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the wanted pipeline is not served. `retry_at` (monotonic seconds) is None where trying again cannot help."""

    wanted: Wanted
    message: str
    tries: int
    retry_at: float | None


class Updater:
    """One update at a time, in a thread of its own; `done` is called after each."""

    def __init__(
        self, settings: Settings, store: ContentStore, plane: DataPlane, path: Path, done: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._store = store
        self._plane = plane
        self._path = path
        self._done = done
        self._thread: threading.Thread | None = None
        self.served = state.load(path)
        self.partition = ""
        self.stage = "idle"
        self.failure: Failure | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an update is under way."""
        return self._thread is not None and self._thread.is_alive()

    def serve_last(self) -> bool:
        """Load what was served last from the local store, without a network."""
        last = self.served.active
        if last is None:
            return False
        try:
            self._plane.swap(pipeline.load(last.digest, self._store, self._settings.cpus, self.partition))
        except EngineError as error:
            logger.error("The pipeline served last cannot be loaded again: %s", error)
            return False
        logger.info("Serving %s from the local store", last.location)
        return True

    def want(self, wanted: Wanted) -> None:
        """Begin to bring `wanted` into memory, unless it is there, under way, or failed and not due again."""
        if self.is_busy:
            return
        current = self._plane.current
        if current and wanted.digest == current.digest:
            self.failure = None
            self._obeyed()
            return
        failure = self.failure if self.failure and self.failure.wanted == wanted else None
        if failure and (failure.retry_at is None or failure.retry_at > time.monotonic()):
            return
        self.stage = "pulling"
        self._thread = threading.Thread(
            target=self._run, args=(wanted, failure.tries if failure else 0), name="updater", daemon=True
        )
        self._thread.start()

    def _obeyed(self) -> None:
        """What is served is what is wanted, whatever PIPELINE_URL says: do not fetch that one at the next start."""
        if self.served.given != self._settings.pipeline_url:
            self.served = replace(self.served, given=self._settings.pipeline_url)
            state.save(self._path, self.served)

    def _run(self, wanted: Wanted, tries: int) -> None:
        try:
            self._bring(wanted)
            self.failure = None
        except (RegistryUnavailable, OSError) as error:
            self._fail(
                Failure(wanted, str(error), tries + 1, time.monotonic() + transport.pause(tries, first=2, longest=300))
            )
        except EngineError as error:
            self._fail(Failure(wanted, str(error), tries + 1, None))
        except Exception as error:
            logger.exception("the update failed")
            self._fail(Failure(wanted, f"The engine failed: {type(error).__name__}.", tries + 1, None))
        finally:
            self.stage = "idle"
            self._done()

    def _bring(self, wanted: Wanted) -> None:
        digest = fetch.fetch(wanted.location, wanted.digest, self._settings.registry, self._store)
        self.stage = "warming"
        logger.info("Starting engine")
        loaded = pipeline.load(digest, self._store, self._settings.cpus, self.partition)
        self.served = self.served.activated(Publish(wanted.location, digest), self._settings.pipeline_url)
        state.save(self._path, self.served)
        self._plane.swap(loaded)
        logger.info("Serving pipeline %s version %s (%s)", loaded.facts.pipeline, loaded.facts.version, digest)
        keep = set().union(
            *(fetch.needed_blobs(kept, self._store) for kept in self.served.digests if self._store.has(kept))
        )
        self._store.keep_only(keep)

    def _fail(self, failure: Failure) -> None:
        self.failure = failure
        again = "" if failure.retry_at is None else " Trying again later."
        logger.error("Pipeline %s cannot be served: %s%s", failure.wanted.location, failure.message, again)
        if self._plane.current is None:
            self.serve_last()
