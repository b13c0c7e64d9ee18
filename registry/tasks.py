from datetime import timedelta

from celery import shared_task

from registry import jobs

# Longer than any live upload stays silent, and within it a client may come back and go on.
_ABANDONED = timedelta(hours=24)


@shared_task
def sweep_uploads() -> None:
    """Remove what abandoned uploads left on the disk."""
    jobs.sweep_uploads(_ABANDONED)
