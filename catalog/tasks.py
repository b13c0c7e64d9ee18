"""Celery carriers of the catalog."""

from celery import shared_task

from catalog import jobs


@shared_task
def sweep_uploads() -> None:
    """Removes what killed uploads left behind."""
    jobs.sweep_uploads()
