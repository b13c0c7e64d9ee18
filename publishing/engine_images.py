"""Which engine images publishes take along: what an administrator stored, else what the environment says.

What was published keeps the image that it was published with.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from catalog.models import User
from common.errors import Forbidden
from publishing import engine_image
from publishing.models import EngineImagesChange


@dataclass(frozen=True)
class EngineImages:
    """What is in force, as `engine_image.chosen` reads it; `follows` is whether the environment decides."""

    text: str
    follows: bool
    change: EngineImagesChange | None = None

    @property
    def named(self) -> dict[str, str]:
        """Images by `arch/accel`, `arch` or `default`. Raises `UnusableEngineImage`."""
        return engine_image.named(self.text)


def current() -> EngineImages:
    """What the next publish takes. One query."""
    change = EngineImagesChange.objects.select_related("actor").first()
    if change is None or change.images is None:
        return EngineImages(settings.ENGINE_IMAGE, True, change)
    return EngineImages(change.images, False, change)


def require_administrator(actor: User) -> None:
    """Raises `Forbidden` for anyone else."""
    if not (actor.is_active and actor.is_superuser):
        raise Forbidden(_("Only an administrator may see or change the engine images."))


def change(*, actor: User, images: str | None, now: datetime) -> EngineImages:
    """Stores which images later publishes take; empty: none, None: as the environment says. For administrators.

    What is so already is not recorded again. Raises `Forbidden`, `UnusableEngineImage`.
    """
    require_administrator(actor)
    text = None if images is None else engine_image.checked(images)
    before = EngineImagesChange.objects.first()
    if text != (before.images if before else None):
        EngineImagesChange.objects.create(images=text, actor=actor, at=now)
    return current()
