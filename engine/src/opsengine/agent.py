"""The engine's side of the conversation with the center: join, check in, and bring in what should be served."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from opsengine import transport
from opsengine.center import Center
from opsengine.errors import CenterRefused, CenterUnavailable
from opsengine.logstore import LogStore
from opsengine.logwriter import LogWriter
from opsengine.plane import DataPlane
from opsengine.report import Contact, Refusal, Reporter
from opsengine.settings import Settings
from opsengine.shipper import Shipper
from opsengine.updater import Updater, Wanted

logger = logging.getLogger(__name__)

DEFAULT_CHECKIN = 30.0  # seconds, when the center names none
LONGEST_CHECKIN = 86_400.0  # a session lapses after a week without contact
SLOWEST_RETRY = 60.0  # seconds between tries to reach the center


class Agent:
    """One thread. `fail` is called with one sentence when there is nothing to serve and trying again cannot help."""

    def __init__(
        self,
        settings: Settings,
        plane: DataPlane,
        center: Center | None,
        log: tuple[LogStore, LogWriter],
        fail: Callable[[str], None],
        is_busy: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._plane = plane
        self._center = center
        self._log_store, self._writer = log
        self._fail = fail
        self._interval = settings.checkin_seconds or DEFAULT_CHECKIN
        self._failures = 0
        self._join_refused = False
        self.contact = Contact(lapses_at=center.session.lapses_at if center and center.session else None)
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self.shipper = (
            Shipper(center, self._log_store, self._writer, settings.page_rows, is_busy, self._note_held)
            if center
            else None
        )
        self.updater: Updater
        self._reporter: Reporter

    def start(self, updater: Updater, reporter: Reporter) -> None:
        """Begin: serve what was served last, then talk to the center and the registry."""
        self.updater, self._reporter = updater, reporter
        self._thread.start()

    def poke(self) -> None:
        """Take the next turn now."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """End the thread, waiting for a call under way."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        if self.updater.served.given == self._settings.pipeline_url:
            try:
                self.updater.serve_last()
            except Exception:  # without this thread nothing would ever be served
                logger.exception("what was served last cannot be loaded")
        while not self._stopping:
            try:
                pause = self._turn()
            except Exception:
                logger.exception("a turn of the agent failed")
                pause = SLOWEST_RETRY
            self._wake.wait(pause)
            self._wake.clear()

    def _turn(self) -> float | None:
        """Hear what should be served and bring it in; returns seconds until the next turn, None: when poked."""
        desired, pause = self._contact()
        failure = self.updater.failure
        if self._plane.current is None and not self.updater.is_busy and failure and failure.retry_at is None:
            # The center, if there is one, was told just now. A start again with other settings is what can help.
            self._fail(failure.message)
        self.contact.wanted = desired or self.contact.wanted
        wanted = self.contact.wanted or self._given()
        if wanted and not self._stopping:
            self.updater.want(wanted)
        return self._until_retry(pause)

    def _until_retry(self, pause: float | None) -> float | None:
        failure = self.updater.failure
        if failure is None or failure.retry_at is None:
            return pause
        until = max(0.05, failure.retry_at - time.monotonic())
        return until if pause is None else min(pause, until)

    def _given(self) -> Wanted | None:
        """PIPELINE_URL, where the center did not say otherwise: when it is new, or nothing else is there to serve."""
        if self._plane.current is None or self.updater.served.given != self._settings.pipeline_url:
            return Wanted(self._settings.pipeline_url, self._settings.pipeline_digest)
        return self.updater.lost

    def _contact(self) -> tuple[Wanted | None, float | None]:
        """Join or check in; what should be served (None: nobody said), and when to call again."""
        if self._center is None:
            return None, None
        try:
            answer = self._answer(self._center)
        except CenterUnavailable as error:
            return None, self._unavailable(error)
        except CenterRefused as refusal:
            self.contact.refusal = Refusal(int(time.time() * 1000), refusal.code, str(refusal))
            if not refusal.is_final:
                return None, self._unavailable(CenterUnavailable(f"The ops center refused: {refusal}"))
            self._refused(refusal)
            return None, None
        self._failures = 0
        self._note_contact(self._center, answer)
        told = answer.get("next_checkin")
        if self._settings.checkin_seconds is None and isinstance(told, (int, float)) and told > 0:
            self._interval = min(float(told), LONGEST_CHECKIN)
        return _wanted(answer.get("desired")), self._interval * random.uniform(0.9, 1.0)  # spread a fleet out

    def _answer(self, center: Center) -> dict[str, Any]:
        if not center.has_spent_bundle and not self._join_refused:
            try:
                answer = center.join()
            except CenterRefused as refusal:
                if not refusal.is_final or center.session is None:
                    raise
                logger.error("The new EDGE_BUNDLE was refused, going on with the session of the old one: %s", refusal)
                self._join_refused = True
            else:
                self._adopt(center)
                return answer
        self._adopt(center)
        return center.checkin(self._reporter.checkin())

    def _note_contact(self, center: Center, answer: dict[str, Any]) -> None:
        session = answer.get("session")
        lapses_at = session.get("lapses_at") if isinstance(session, dict) else answer.get("lapses_at")
        if isinstance(lapses_at, int):
            self.contact.lapses_at = lapses_at
            center.keep_lapse(lapses_at)
        self.contact.last, self.contact.problem = int(time.time() * 1000), None

    def _note_held(self, why: str | None) -> None:
        self.contact.held = why

    def _adopt(self, center: Center) -> None:
        """Be the edge of the session: rows, name and log epoch are its own. Starts shipping."""
        session = center.session
        assert session is not None and self.shipper is not None
        self.updater.partition = session.edge_name
        owner = self._log_store.owner
        if owner is None:
            self._log_store.set_owner(session.edge_id)
        elif owner != session.edge_id:
            # Rows of the edge before that were not taken yet are this one's to tell; the numbers begin again.
            self._writer.begin_epoch(owner=session.edge_id)
        if not self.shipper.is_started:
            self.shipper.start()

    def _unavailable(self, error: CenterUnavailable) -> float:
        level = logging.WARNING if self._failures == 0 else logging.DEBUG
        logger.log(level, "%s The engine goes on without, and tries again.", error)
        self.contact.problem = str(error)
        wait = transport.pause(self._failures, longest=max(SLOWEST_RETRY, self._interval))
        self._failures += 1
        return max(wait, min(error.retry_after or 0.0, 3600.0))

    def _refused(self, refusal: CenterRefused) -> None:
        """Final until a new bundle is given: go on serving what is there, or say why there is nothing."""
        self._center = None
        if self._plane.current is None and not self.updater.is_busy and not self.updater.serve_last():
            self._fail(f"{refusal} ({refusal.code})")
            self._stopping = True
        else:
            logger.error(
                "The ops center refused this edge: %s (%s) The engine keeps serving what it has.", refusal, refusal.code
            )


def _wanted(desired: object) -> Wanted | None:
    if not isinstance(desired, dict) or not isinstance(desired.get("pipeline_url"), str):
        return None
    digest = desired.get("digest")
    return Wanted(desired["pipeline_url"], digest if isinstance(digest, str) else None)
