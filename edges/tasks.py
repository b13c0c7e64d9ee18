"""Celery's carriers. All may run twice, at once or late: beat calls them again."""

from celery import shared_task
from django.utils import timezone

from edges import jobs


@shared_task(ignore_result=True)
def follow_publish(publish_id: int) -> int:
    """Sent when a publish has arrived: its replaced publishes' edges are moved at once."""
    return jobs.follow_publish(publish_id, timezone.now())


@shared_task(ignore_result=True)
def follow_replacements() -> int:
    """What `follow_publish` would have done, for messages that were lost."""
    return jobs.follow_replacements(timezone.now())


@shared_task(ignore_result=True)
def prune_assertions() -> int:
    """Forgets old assertions."""
    return jobs.prune_assertions(timezone.now())


@shared_task(ignore_result=True)
def prune_signing_keys() -> int:
    """Deletes rotated signing keys that no token needs any more."""
    return jobs.prune_signing_keys(timezone.now())
