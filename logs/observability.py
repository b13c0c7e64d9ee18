"""Whether edges may ship their logs here: a switch for the whole center.

While it is off everything else of edges goes on, and engines keep their rows for when it is on again. What the
administrator said last counts; else, or when that was to follow it, the environment (`OPSCENTER_EDGE_OBSERVABILITY`).
"""

import time
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from catalog.models import User
from common.errors import Forbidden
from logs.errors import ObservabilityOff
from logs.models import ObservabilityChange

LIFE = 2.0  # seconds that a process goes on with what it read, so that a page costs no query for it
OFF = (
    "Observability is off at this ops center, so it takes no logs: the rows stay on the edge until an administrator "
    "switches it on in the admin console."
)


@dataclass(frozen=True)
class Observability:
    """What is in force, and since which change; `follows` is whether the environment decides."""

    enabled: bool
    follows: bool
    change: ObservabilityChange | None = None


_remembered: tuple[bool, float] | None = None


def current() -> Observability:
    """What is in force now. One query."""
    change = ObservabilityChange.objects.select_related("actor").first()
    if change is None or change.enabled is None:
        return Observability(settings.EDGE_OBSERVABILITY, True, change)
    return Observability(change.enabled, False, change)


def is_on() -> bool:
    """Whether logs are taken, as this process knows for at most `LIFE`."""
    global _remembered
    found = _remembered
    if found is None or not found[1] - LIFE <= time.monotonic() <= found[1]:
        found = _remembered = (current().enabled, time.monotonic() + LIFE)
    return found[0]


def require_on() -> None:
    """Raises `ObservabilityOff`."""
    if not is_on():
        raise ObservabilityOff(OFF)


def switch(*, actor: User, enabled: bool | None, now: datetime) -> Observability:
    """Switches it, or with None leaves it to the environment; for administrators. Raises `Forbidden`.

    What is so already is not recorded again.
    """
    if not (actor.is_active and actor.is_superuser):
        raise Forbidden(_("Only an administrator may switch observability."))
    before = ObservabilityChange.objects.first()
    if enabled != (before.enabled if before else None):
        ObservabilityChange.objects.create(enabled=enabled, actor=actor, at=now)
    forget()
    return current()


def forget() -> None:
    """Makes this process read it again."""
    global _remembered
    _remembered = None
