"""Brings a wanted pipeline into memory: pull, load, warm and try it beside the old one, swap, tidy the store.

A publish that does not hold is taken back by itself: one that the process died of twice while it started, and one whose
first inferences all fail. It is not tried again until something else was wanted in between.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from opsengine import fetch, golden, included, pipeline, state, transport, trial
from opsengine.definition import ModelEntry
from opsengine.errors import EngineError, NoRoom, PipelineError, RegistryError, RegistryUnavailable
from opsengine.pipeline import LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.settings import Settings
from opsengine.signatures import Proofs
from opsengine.state import Publish, Served
from opsengine.trial import Ledger, Trial

logger = logging.getLogger(__name__)

NOTHING_BEFORE = "There is no publish before this one here."
NOT_NOW = "An update is under way: try again when it has ended."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be served: by digest where the center said so, else whatever is at the location."""

    location: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the wanted pipeline is not served. `retry_at` (monotonic seconds) is None where trying again cannot help.

    `models`: those of the wanted pipeline, as far as it came.
    """

    wanted: Wanted
    message: str
    tries: int
    retry_at: float | None
    models: tuple[ModelEntry, ...] = ()


class Updater:
    """One update at a time, in a thread of its own; `done` is called after each. All its files are in `folder`."""

    def __init__(self, settings: Settings, plane: DataPlane, folder: Path, done: Callable[[], None]) -> None:
        self._settings = settings
        self._store = included.open_store(folder / "store", settings.pipeline_dir)
        self._proofs = Proofs(folder / "store" / "signatures", settings.signing_key)
        self._ledger = Ledger(folder / "trial.json")
        self._plane = plane
        self._path = folder / "served.json"
        self._done = done
        self._thread: threading.Thread | None = None
        self._trial: Trial | None = None
        self._judging = threading.Lock()
        self.served = state.load(self._path)
        self.partition = settings.partition
        self.stage = "idle"
        self.failure: Failure | None = None
        self._found: Publish | None = None  # what lies at the location that was asked last
        self.lost: Wanted | None = None  # served last, but damaged here: to be fetched again

    @property
    def is_busy(self) -> bool:
        """Whether an update is under way."""
        return self._thread is not None and self._thread.is_alive()

    def serve_last(self) -> bool:
        """Load what was served last from the local store, without a network; else what was served before that."""
        active, previous = self.served.active, self.served.previous
        if active and previous and self._ledger.has_crashed(active.digest):
            self._take_back(active, previous, f"It ended the engine {trial.CRASHES} times in a row while it started.")
            active, previous = previous, None
        for last in filter(None, (active, previous)):
            try:
                loaded = self._load(last.digest)
            except (EngineError, OSError) as error:
                logger.error("%s cannot be loaded again: %s", last.location, error)
                self.lost = self.lost or Wanted(last.location, last.digest)
                continue
            self._trial = Trial(last.digest, None)
            self._plane.swap(loaded)
            logger.info("Serving %s from the local store", last.location)
            return True
        return False

    def want(self, wanted: Wanted) -> None:
        """Begin to bring `wanted` into memory, unless it is there, under way, or failed and not due again."""
        if self.is_busy:
            return
        self._ledger.forgive_all_but(wanted.digest or self._last_failed)
        current = self._plane.current
        if current and wanted.digest == current.digest:
            self.failure = self.lost = None
            self._obeyed()
            return
        reason = self._ledger.rejection(wanted.digest)
        if reason and current:
            self.failure = Failure(wanted, reason, 1, None)
            return
        failure = self.failure if self.failure and self.failure.wanted == wanted else None
        if failure and (failure.retry_at is None or failure.retry_at > time.monotonic()):
            return
        self.stage = "pulling"
        self._thread = threading.Thread(
            target=self._run, args=(wanted, failure.tries if failure else 0), name="updater", daemon=True
        )
        self._thread.start()

    def observe(self, digest: str, fine: bool) -> None:
        """How an inference ended. The first good one ends the trial of a new publish, too many bad ones the publish."""
        on_trial = self._trial
        if on_trial is None or on_trial.digest != digest:
            return
        with self._judging:
            if self._trial is not on_trial:
                return
            on_trial.failures += not fine
            if not fine and (on_trial.before is None or on_trial.failures < trial.FAILURES):
                return
            self._trial = None
            if not fine and on_trial.before:
                self._plane.swap(on_trial.before)
        # Files are written beside the request that brought the verdict.
        work = self._ledger.held if fine else self._roll_back
        threading.Thread(target=work, args=(digest,), name="verdict", daemon=True).start()

    def roll_back(self) -> None:
        """A person wants the publish before: serve it, and leave the other one until something else was wanted.

        Nothing changes while an update is under way, or where no publish before is left that can be loaded.
        """
        active, previous = self.served.active, self.served.previous
        try:
            if self.is_busy or active is None or previous is None:
                raise PipelineError(NOT_NOW if self.is_busy else NOTHING_BEFORE)
            loaded = self._load(previous.digest)
        except EngineError as error:
            logger.error("Not rolled back: %s", error)
            return
        with self._judging:
            self._trial = None
            self._plane.swap(loaded)
        self._take_back(active, previous, trial.BY_HAND)
        self._done()

    def stop(self) -> None:
        """The engine ends in order: that is no crash of what it serves."""
        self._ledger.held()

    @property
    def _last_failed(self) -> str | None:
        return self.failure.wanted.digest if self.failure else None

    def _obeyed(self) -> None:
        """What is served is what is wanted, whatever PIPELINE_URL says: do not fetch that one at the next start."""
        if self.served.given != self._settings.pipeline_url:
            self._keep(replace(self.served, given=self._settings.pipeline_url))

    def _run(self, wanted: Wanted, tries: int) -> None:
        try:
            self._bring(wanted)
            self.failure = self.lost = None
        except (RegistryUnavailable, NoRoom, OSError) as error:
            told = str(error) if isinstance(error, EngineError) else _of_the_disk(error)
            retry_at = time.monotonic() + transport.pause(tries, first=2, longest=300)
            self._fail(Failure(wanted, told, tries + 1, retry_at))
        except EngineError as error:
            self._fail(Failure(wanted, str(error), tries + 1, None))
        except Exception as error:
            logger.exception("the update failed")
            self._fail(Failure(wanted, f"The engine failed: {type(error).__name__}.", tries + 1, None))
        finally:
            self.stage = "idle"
            self._done()

    def _bring(self, wanted: Wanted) -> None:
        digest = fetch.fetch(
            wanted.location,
            wanted.digest,
            self._settings.registry,
            self._store,
            self._proofs,
            found=partial(self._note_found, wanted.location),
        )
        before = self._plane.current
        reason = self._ledger.rejection(digest)
        if before and self._ledger.has_crashed(digest):
            reason = f"It ended the engine {trial.CRASHES} times in a row while it started."
            self._ledger.reject(digest, reason)
        if before and reason:
            raise PipelineError(reason)
        self.stage = "warming"
        logger.info("Starting engine")
        loaded = self._load(digest)
        self._try(loaded)
        self._keep(self.served.activated(Publish(wanted.location, digest), self._settings.pipeline_url))
        self._trial = Trial(digest, before)
        self._plane.swap(loaded)
        logger.info("Serving pipeline %s version %s (%s)", loaded.facts.pipeline, loaded.facts.version, digest)
        self._tidy()

    def _note_found(self, location: str, digest: str) -> None:
        self._found = Publish(location, digest)

    def _known_models(self, wanted: Wanted) -> tuple[ModelEntry, ...]:
        publishes = filter(None, (self._found, self.served.active, self.served.previous))
        known = (publish.digest for publish in publishes if publish.location == wanted.location)
        digest = wanted.digest or next(known, None)
        return fetch.models(digest, self._store) if digest else ()

    def _load(self, digest: str) -> LoadedPipeline:
        """Read all of it again against its digests, then load and warm it; noted, in case the process dies of it."""
        if not fetch.is_intact(digest, self._store):
            raise RegistryUnavailable(f"The local copy of {digest} is damaged or not complete: it is fetched again.")
        if not self._proofs.has(digest):
            raise RegistryError(f"{digest} has no signature here that holds, and one is required: sign the publish.")
        self._ledger.begin(digest)
        try:
            loaded = pipeline.load(digest, self._store, self._settings.cpus, self.partition)
        except Exception:
            self._ledger.held(digest)  # refused, but not died of
            raise
        timer = threading.Timer(trial.HELD_SECONDS, self._ledger.held, (digest,))
        timer.daemon = True
        timer.start()
        return loaded

    def _try(self, loaded: LoadedPipeline) -> None:
        """Run the golden request that was shipped with the publish, if there is one. Raises PipelineError."""
        try:
            shipped = golden.find(loaded.digest, self._store)
            if shipped:
                golden.check(shipped, loaded, self._settings.max_body)
                logger.info("The golden request of the publish gave what it should")
        except EngineError:
            self._ledger.held(loaded.digest)  # it did not crash, it is only wrong
            raise

    def _roll_back(self, digest: str) -> None:
        active, previous = self.served.active, self.served.previous
        if active and previous and active.digest == digest:
            self._take_back(active, previous, f"Its first {trial.FAILURES} inferences all failed.")
        self._done()

    def _take_back(self, bad: Publish, good: Publish, reason: str) -> None:
        told = trial.taken_back(reason)
        logger.error("%s is taken back: %s", bad.location, told)
        self._ledger.reject(bad.digest, told)
        self._keep(Served(good, None, self._settings.pipeline_url))
        self.failure = Failure(Wanted(bad.location, bad.digest), told, 1, None)

    def _keep(self, served: Served) -> None:
        self.served = served
        state.save(self._path, served)

    def _tidy(self) -> None:
        kept = [digest for digest in self.served.digests if self._store.has(digest)]
        self._store.keep_only(set().union(*(fetch.needed_blobs(digest, self._store) for digest in kept)))
        self._proofs.keep_only(kept)

    def _fail(self, failure: Failure) -> None:
        self.failure = replace(failure, models=self._known_models(failure.wanted))
        again = "" if failure.retry_at is None else " Trying again later."
        logger.error("Pipeline %s cannot be served: %s%s", failure.wanted.location, failure.message, again)
        if self._plane.current is None:
            self.serve_last()


def _of_the_disk(error: OSError) -> str:
    return f"PERSIST_DIR cannot be used ({error.strerror or error}): check its disk and its owner."
