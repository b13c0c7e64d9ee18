"""Celery's carriers. All may run twice, at once or late: the lease lets one work, and beat calls again."""

import logging

from celery import shared_task
from django.utils import timezone

from rollouts import jobs

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def advance_rollout(rollout_id: int) -> bool:
    """Sent when somebody made or changed a rollout, so that it goes on at once."""
    return jobs.advance(rollout_id, timezone.now())


@shared_task(ignore_result=True)
def advance_rollouts() -> int:
    """Every few seconds. One rollout that cannot be advanced does not hold up the others."""
    advanced = 0
    for rollout_id in jobs.live_rollouts():
        try:
            advanced += jobs.advance(rollout_id, timezone.now())
        except Exception:
            logger.exception("rollout %d could not be advanced; tried again in a few seconds", rollout_id)
    return advanced
