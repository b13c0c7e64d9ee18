"""The work of exports, outside of transactions. Killed anywhere and run again, each row is in the files once.

Files count once they are in the database, together with the cursor after their last row; what a killed run left beside
them is removed by the next. One export is written at a time, so that publishes find a worker.
"""

import logging
import shutil
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Q
from django.db.models.functions import Now
from django.utils import timezone

from common.errors import DomainError
from logs import queries
from logs.asked import Asked, folder_of, kept_for, require_room
from logs.export_files import Files
from logs.merge import Batch
from logs.models import LogExport, LogExportFile
from logs.query import Cursor

logger = logging.getLogger(__name__)

BATCH_ROWS = 50_000
RECORD_SECONDS = 1.0
STALE_SECONDS = 30.0  # the database's clock: a run that recorded nothing for so long is gone
ENQUEUED_SECONDS = 60.0  # a message that was sent this recently is still believed
SWEPT_AFTER = timedelta(hours=1)  # an export's row is there before its folder, but deleted before it too
Status = LogExport.Status


class Lost(Exception):
    """It was cancelled, removed, or another run holds it: this one must not write."""


class Run:
    """This run's hold on an export. The first write after it was lost raises `Lost`."""

    def __init__(self, export: LogExport) -> None:
        self.export = export
        self.rows = sum(export.files.values_list("rows", flat=True))
        self._mine = LogExport.objects.filter(pk=export.pk, attempt=export.attempt, status=Status.RUNNING)
        self._recorded = time.monotonic()

    def write(self, **fields: Any) -> None:
        """Records, which also shows that this run is alive."""
        if not self._mine.update(heartbeat_at=Now(), **fields):
            raise Lost
        self._recorded = time.monotonic()

    def tell(self, batch: Batch) -> None:
        """Records how far it is, not more often than somebody could look."""
        if batch.next and time.monotonic() - self._recorded >= RECORD_SECONDS:
            self.write(rows=self.rows, time_at=batch.next.time)

    def finish(self, files: Files, batch: Batch) -> None:
        """Makes files and the place after them durable."""
        finished = files.finish()
        with transaction.atomic():
            self.write(cursor=str(batch.next) if batch.next else "", rows=self.rows)
            LogExportFile.objects.bulk_create(
                LogExportFile(export=self.export, number=file.number, rows=file.rows, size=file.size)
                for file in finished
            )


def export(export_id: str) -> bool:
    """Writes an export's files; True when it is over then, so that another can be written.

    Does nothing when it is over already, another run holds it, or another export is being written.
    """
    held = claim(export_id)
    if held is None:
        return False
    try:
        _write(held)
    except Lost:
        logger.info("export was cancelled or taken over", extra={"export": export_id})
    except DomainError as exc:
        _fail(held, exc.message)
    except OSError as exc:
        _fail(held, f"The files cannot be written: {exc.strerror or exc}.")
    except Exception:
        logger.exception("export failed", extra={"export": export_id})
        _fail(held, "The export failed inside OpsCenter; the worker's log says why. Try again, or report it.")
    return True


def claim(export_id: str) -> Run | None:
    """Takes an export that waits or was abandoned, while no other is being written; None when it cannot be taken."""
    others = LogExport.objects.filter(status=Status.RUNNING).exclude(_abandoned()).exclude(pk=export_id)
    taken = LogExport.objects.filter(~Exists(others), Q(status=Status.PENDING) | _abandoned(), pk=export_id).update(
        status=Status.RUNNING, attempt=uuid.uuid4(), heartbeat_at=Now()
    )
    if not taken:
        return None
    return Run(LogExport.objects.select_related("pipeline").get(pk=export_id))


def take_waiting() -> list[str]:
    """Ids of exports that no worker knows of."""
    waiting = LogExport.objects.filter(Q(status=Status.PENDING) | _abandoned()).filter(
        Q(enqueued_at=None) | Q(enqueued_at__lt=Now() - timedelta(seconds=ENQUEUED_SECONDS))
    )
    ids = waiting.order_by("created_at").values_list("pk", flat=True)
    return [str(pk) for pk in list(ids) if waiting.filter(pk=pk).update(enqueued_at=Now())]


def next_waiting() -> str | None:
    """The export that has waited longest."""
    pk = LogExport.objects.filter(status=Status.PENDING).order_by("created_at").values_list("pk", flat=True).first()
    return str(pk) if pk else None


def expire(now: datetime) -> int:
    """Removes files whose time is over, and folders that no export has any more; how many exports expired."""
    over = LogExport.objects.filter(expires_at__lt=now).exclude(status=Status.EXPIRED)
    expired = 0
    for pk in list(over.values_list("pk", flat=True)):
        # The listing goes first: nobody is offered a file that is gone.
        LogExportFile.objects.filter(export=pk).delete()
        shutil.rmtree(folder_of(pk), ignore_errors=True)
        expired += LogExport.objects.filter(pk=pk).update(status=Status.EXPIRED)
    _sweep(now)
    return expired


def _abandoned() -> Q:
    return Q(status=Status.RUNNING, heartbeat_at__lt=Now() - timedelta(seconds=STALE_SECONDS))


def _write(held: Run) -> None:
    export = held.export
    asked = Asked.of(export)
    query = asked.query(export, BATCH_ROWS)
    left = None if asked.limit is None else asked.limit - held.rows
    if export.cursor:
        query = replace(query, cursor=Cursor.parse(export.cursor))
    files = Files(_swept(export), export.format, export.data_size_limit, export.files.count() + 1)
    is_over = left == 0 or bool(held.rows and not export.cursor)
    try:
        # A batch is written while the next is read: both work outside of Python's lock, so they use two cores.
        with ThreadPoolExecutor(1, thread_name_prefix="export") as pool:
            ahead: tuple[Batch, Future[None]] | None = None
            for batch in () if is_over else queries.walk(export.pipeline, query, left):
                if ahead:
                    _settle(held, files, *ahead)
                require_room()
                ahead = batch, pool.submit(_append, files, batch)
            if ahead:
                _settle(held, files, *ahead)
        now = timezone.now()
        held.write(status=Status.DONE, finished_at=now, expires_at=now + kept_for())
    finally:
        files.discard()


def _append(files: Files, batch: Batch) -> None:
    for table in batch.tables:
        files.write(table)


def _settle(held: Run, files: Files, batch: Batch, written: Future[None]) -> None:
    """Waits until a batch is written, and records it. Raises what the writing raised."""
    written.result()
    held.rows += sum(len(table) for table in batch.tables)
    if files.is_due or batch.next is None:
        held.finish(files, batch)
    held.tell(batch)


def _swept(export: LogExport) -> Path:
    """The export's folder without what a killed run left in it."""
    folder = folder_of(export.pk)
    folder.mkdir(parents=True, exist_ok=True)
    known = {f"{number:06}.{export.format}" for number in export.files.values_list("number", flat=True)}
    for path in folder.iterdir():
        if path.name not in known:
            path.unlink()
    return folder


def _sweep(now: datetime) -> None:
    root = Path(settings.LOG_EXPORT_ROOT)
    if not root.is_dir():
        return
    known = {str(pk) for pk in LogExport.objects.values_list("pk", flat=True)}
    for folder in root.iterdir():
        if folder.name not in known and folder.stat().st_mtime < (now - SWEPT_AFTER).timestamp():
            shutil.rmtree(folder, ignore_errors=True)


def _fail(held: Run, why: str) -> None:
    now = timezone.now()
    try:
        held.write(status=Status.ERROR, error=why, finished_at=now, expires_at=now + kept_for())
    except Lost:
        logger.warning("export failed after it was cancelled", extra={"export": str(held.export.pk)})
