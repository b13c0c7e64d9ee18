"""Upkeep of the registry's folder."""

from datetime import timedelta

from django.conf import settings

from registry import uploads


def sweep_uploads(older_than: timedelta) -> int:
    """Remove uploads and half-written files untouched for `older_than`; return how many. Running uploads stay."""
    return uploads.sweep(settings.REGISTRY_ROOT / "uploads", older_than)
