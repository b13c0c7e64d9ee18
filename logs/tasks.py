"""Celery's carriers of logs. All may run twice, at once or late."""

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from logs import compaction, delta, export_jobs, retention, rollups


@shared_task(ignore_result=True)
def roll_up() -> int:
    """Every few seconds: what arrived since."""
    return rollups.roll_up_waiting(timezone.now)


@shared_task(ignore_result=True)
def drop_old_rollups() -> int:
    """Once in a while."""
    return rollups.drop_old(timezone.now())


@shared_task(ignore_result=True)
def run_export(export_id: str) -> None:
    """Writes an export's files, and then has the next one written that waits."""
    if export_jobs.export(export_id) and (following := export_jobs.next_waiting()):
        run_export.delay(following)


@shared_task(ignore_result=True)
def recover_exports() -> None:
    """Sends again what waits without a message, and what lost its worker."""
    for export_id in export_jobs.take_waiting():
        run_export.delay(export_id)


@shared_task(ignore_result=True)
def expire_exports() -> int:
    """Removes the files of old exports."""
    return export_jobs.expire(timezone.now())


@shared_task(ignore_result=True)
def compact() -> int:
    """Every few seconds: pages that wait become segments."""
    return compaction.compact_waiting(timezone.now)


@shared_task(ignore_result=True)
def expire_logs() -> int:
    """Once in a while: what is beyond the limits, and the files that nothing needs any more."""
    gone = retention.expire(timezone.now())
    retention.expire_sums(timezone.now())
    compaction.sweep(timezone.now)
    return gone


@shared_task(ignore_result=True)
def publish_delta() -> int:
    """Every minute: segments that came and went, in the logs of Delta tables, where that is switched on."""
    return delta.publish() if settings.LOGS_DELTA else 0
