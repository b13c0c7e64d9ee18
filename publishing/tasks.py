"""Carriers of publishing: ids in, one job."""

from celery import current_app, shared_task
from django.conf import settings

from publishing import jobs


@shared_task
def publish_version(publish_id: int) -> None:
    """Brings a publish to the registry, and tells those who wait for it that it has arrived."""
    if jobs.publish(publish_id):
        for name in settings.PUBLISHED_TASKS:
            current_app.send_task(name, [publish_id])


@shared_task
def recover_publishes() -> None:
    """Sends again what waits without a message, and what lost its worker."""
    for publish_id in jobs.take_abandoned():
        publish_version.delay(publish_id)
