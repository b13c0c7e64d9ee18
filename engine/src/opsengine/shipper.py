"""Ships log rows to the center: in order, each at least once on the wire and exactly once at the center."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from opsengine import transport
from opsengine.center import Center
from opsengine.errors import CenterRefused, CenterUnavailable
from opsengine.logstore import Gap, LogStore, Shipment
from opsengine.logwriter import LogWriter

logger = logging.getLogger(__name__)

LARGEST_PAGE = 10 * 2**20  # bytes; the center refuses more (contract/README.md)
GATHER_SECONDS = 0.3  # rows gather this long before they are sent, so that a page is worth its request
IDLE_SECONDS = 5.0  # a look for rows even when nobody called
YIELD_SECONDS = 0.25  # between two pages while requests wait: some 4,000 rows a second still go out
QUICK_SECONDS = 2.0  # a page that took longer is not followed by a larger one
REFUSALS = 3  # so often a page may be refused before it is given up: the rows behind it must not wait for ever


class Shipper:
    """One thread, one page under way. Stops for good when the center's refusal is final.

    `is_busy` says that inference requests wait: a backlog then goes out with pauses between its pages. `tell_held` is
    told why the center takes no rows for now, and None once it takes them again.
    """

    def __init__(
        self,
        center: Center,
        store: LogStore,
        writer: LogWriter,
        page_rows: int,
        is_busy: Callable[[], bool] = bool,
        tell_held: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._center = center
        self._store = store
        self._writer = writer
        self._page_rows = page_rows
        self._is_busy = is_busy
        self._tell_held = tell_held
        self._max_rows = page_rows
        self._refused = 0
        self._failures = 0
        self._found = store.position.last  # rows that lay here at the start
        self._sent = self._found  # no number beyond it can be at the center
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-shipper", daemon=True)

    def start(self) -> None:
        """Begin shipping; needs a joined center."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ship what is there once more, for at most `timeout` seconds, and end the thread."""
        self._stopping.set()
        self._writer.wrote.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def is_started(self) -> bool:
        """Whether shipping has begun."""
        return self._thread.ident is not None

    @property
    def is_alive(self) -> bool:
        """Whether the thread still works on a request."""
        return self._thread.is_alive()

    def ship_once(self) -> bool:
        """Send the next page or gap; False when there is nothing to send. Raises CenterUnavailable or CenterRefused."""
        todo = self._store.next(self._max_rows)
        if todo is None:
            return False
        began = time.monotonic()
        try:
            if isinstance(todo, Gap):
                self._sent = max(self._sent, todo.last)
                answer = self._center.send_gap(_gap_body(todo))
            else:
                body = self._body(todo)
                if body is None:
                    return True
                self._sent = max(self._sent, todo.first + todo.count - 1)
                answer = self._center.send_page(
                    body, epoch=todo.epoch, first=todo.first, pipeline_version=todo.pipeline_version
                )
        except CenterRefused as refusal:
            if not self._is_over(todo):
                self._on_refusal(refusal, todo)
            return True
        except CenterUnavailable as error:
            if error.was_long and isinstance(todo, Shipment):  # a slow link may take half of it
                self._max_rows = max(1, todo.count // 2)
            raise
        self._refused = 0
        self._tell_held(None)
        if time.monotonic() - began < QUICK_SECONDS:
            self._max_rows = min(self._page_rows, self._max_rows * 2)  # after a smaller one, find back to full pages
        if not self._is_over(todo):
            self._take_ack(answer.number("acked"), todo if isinstance(todo, Gap) else None)
        return True

    def _is_over(self, todo: Shipment | Gap) -> bool:
        """Whether the log was begun anew while this was under way: the answer is of rows that are no longer there."""
        return todo.epoch != self._store.position.epoch

    def _take_ack(self, acked: int | None, told: Gap | None) -> None:
        if acked is None:
            raise CenterUnavailable("The ops center took a page without saying up to which row: is it up to date?")
        if acked > self._sent:
            self._restored(acked)
        else:
            self._store.acknowledge(acked, told)

    def _body(self, shipment: Shipment) -> bytes | None:
        """The page as a zstd Arrow stream, None when it was too large and fewer rows must be tried."""
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, shipment.batches[0].schema, options=options) as writer:
            for batch in shipment.batches:
                writer.write_batch(batch)
        body: bytes = sink.getvalue().to_pybytes()
        if len(body) <= LARGEST_PAGE:
            return body
        self._shrink(shipment)
        return None

    def _shrink(self, shipment: Shipment) -> None:
        if shipment.count > 1:
            self._max_rows = max(1, shipment.count // 2)
        else:
            logger.error("Row %d is too large for the ops center and is told as a gap", shipment.first)
            self._store.give_up(shipment.first, shipment.first, "row_too_large")

    def _on_refusal(self, refusal: CenterRefused, todo: Shipment | Gap) -> None:
        if refusal.is_final:
            raise refusal
        if refusal.status == 401:  # with a new token already: a center that is being restored, say
            raise CenterUnavailable(f"The ops center does not know this edge now: {refusal}")
        if refusal.is_hold:
            self._tell_held(str(refusal))
            raise CenterUnavailable(f"The ops center takes no logs now: {refusal}")
        expected = refusal.details.get("expected")
        if refusal.code == "log_hole" and isinstance(expected, int):
            self._resync(expected)
        elif refusal.code == "page_too_large" and isinstance(todo, Shipment):
            self._shrink(todo)
        else:
            self._count_refusal(refusal, todo)

    def _resync(self, expected: int) -> None:
        logger.warning("The ops center expects row %d of the log: going there", expected)
        if expected - 1 > self._sent:
            self._restored(expected - 1)
        else:
            self._store.resync(expected)

    def _restored(self, acked: int) -> None:
        logger.warning(
            "The ops center has rows up to %d that were never sent: this log is an older copy, a new epoch begins",
            acked,
        )
        # What lay here at the start lay there before the copy was made. What came since carried numbers that the center
        # knows for other rows, so it was taken for a resend and must be sent again.
        self._writer.begin_epoch(self._found)
        self._found = 0
        self._sent = self._store.position.last

    def _count_refusal(self, refusal: CenterRefused, todo: Shipment | Gap) -> None:
        self._refused += 1
        if self._refused < REFUSALS or isinstance(todo, Gap):
            raise CenterUnavailable(f"The ops center refused log rows from {todo.first} on: {refusal}")
        last = todo.first + todo.count - 1
        logger.error(
            "The ops center refuses rows %d to %d (%s: %s): told as a gap", todo.first, last, refusal.code, refusal
        )
        self._store.give_up(todo.first, last, f"refused_{refusal.code}"[:64])
        self._refused = 0

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
            while self.ship_once():
                pass
        except CenterRefused as refusal:
            logger.error("The ops center takes no more logs from this edge: %s Logs stay on this edge.", refusal)
        except (CenterUnavailable, sqlite3.Error):
            logger.debug("the last rows stay on this edge until the next start")

    def _turn(self) -> None:
        """Send one page, or wait for something to send. Raises CenterRefused when that is final."""
        epoch = self._writer.epoch
        try:
            if self._is_busy():
                self._stopping.wait(YIELD_SECONDS)
            more = self.ship_once()
            self._failures = 0
        except CenterUnavailable as error:
            self._wait_after(error)
            return
        except CenterRefused:
            raise
        except Exception as error:  # a full disk that cannot take the acknowledgement, say: the page is then sent again
            logger.exception("shipping the inference log failed")
            if isinstance(error, sqlite3.Error) and self._store.is_damaged(error):
                self._writer.begin_again(error, epoch)
            self._stopping.wait(transport.pause(self._failures))
            self._failures += 1
            return
        if not more:
            self._writer.wrote.wait(IDLE_SECONDS)
            self._writer.wrote.clear()
            self._stopping.wait(GATHER_SECONDS)

    def _wait_after(self, error: CenterUnavailable) -> None:
        level = logging.WARNING if self._failures == 0 else logging.DEBUG
        logger.log(level, "%s Logs are kept and sent later.", error)
        wait = transport.pause(self._failures)
        self._failures += 1
        self._stopping.wait(max(wait, min(error.retry_after or 0.0, 3600.0)))


def _gap_body(gap: Gap) -> dict[str, object]:
    """contract/gaps.request.json"""
    return {
        "epoch": gap.epoch,
        "first": gap.first,
        "last": gap.last,
        "count": gap.last - gap.first + 1,
        "time_min": gap.time_min,
        "time_max": gap.time_max,
        "reason": gap.reason,
    }
