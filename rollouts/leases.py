"""One worker a rollout: a lease taken by a conditional update, checked again before every write.

A worker that is killed leaves only whole transactions behind, and its lease ends by itself.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from rollouts.models import ENDED, Rollout

# Far more than one batch takes. Every batch renews it.
LEASE = timedelta(seconds=60)


class LeaseLost(Exception):
    """Another worker took over, because this one was too slow."""


class Turn:
    """One worker's turn with a rollout. `now` goes on from the given time, so that long turns do not date back."""

    def __init__(self, rollout_id: int, now: datetime) -> None:
        self.rollout_id = rollout_id
        self.lease = uuid.uuid4()
        self._begun, self._base = time.monotonic(), now

    @property
    def now(self) -> datetime:
        """The time, as the caller's clock shows it."""
        return self._base + timedelta(seconds=time.monotonic() - self._begun)

    def take(self) -> bool:
        """Whether the lease is ours: the rollout has not ended and nobody else advances it."""
        free = Q(leased_until=None) | Q(leased_until__lte=self.now)
        rows = Rollout.objects.filter(free, pk=self.rollout_id).exclude(state__in=ENDED)
        return rows.update(lease=self.lease, leased_until=self.now + LEASE) == 1

    @contextmanager
    def step(self) -> Iterator[Rollout]:
        """A short transaction with the rollout's row locked and read anew. Raises `LeaseLost`."""
        with transaction.atomic():
            rollout = Rollout.objects.select_for_update().filter(pk=self.rollout_id, lease=self.lease).first()
            if rollout is None:
                raise LeaseLost
            yield rollout
            Rollout.objects.filter(pk=self.rollout_id).update(leased_until=self.now + LEASE)

    def release(self) -> None:
        """Lets the next worker begin at once."""
        Rollout.objects.filter(pk=self.rollout_id, lease=self.lease).update(lease=None, leased_until=None)
