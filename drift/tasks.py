"""Celery's carriers of drift. All may run twice, at once or late: a window is scored once."""

from celery import shared_task
from django.utils import timezone

from drift import jobs


@shared_task(ignore_result=True)
def run_assays() -> int:
    """Every now and then: windows that are due."""
    return jobs.run_due(timezone.now)


@shared_task(ignore_result=True)
def pause_replaced_assays() -> int:
    """Every now and then: assays whose edges run something else since a replacement."""
    return jobs.pause_replaced()
