"""Celery's carriers of logs. All may run twice, at once or late."""

from celery import shared_task
from django.utils import timezone

from logs import rollups


@shared_task(ignore_result=True)
def roll_up() -> int:
    """Every few seconds: what arrived since."""
    return rollups.roll_up_waiting(timezone.now)


@shared_task(ignore_result=True)
def drop_old_rollups() -> int:
    """Once in a while."""
    return rollups.drop_old(timezone.now())
