"""Long work of the catalog."""

import time
from pathlib import Path

from django.conf import settings

ABANDONED_AFTER = 24 * 3600  # s; no upload that is still running is untouched for a day


def sweep_uploads(now: float | None = None) -> int:
    """Removes drafts that a killed upload left behind; how many."""
    oldest = (now if now is not None else time.time()) - ABANDONED_AFTER
    swept = 0
    for draft in (Path(settings.MODEL_ROOT) / "incoming").glob("*"):
        if draft.stat().st_mtime < oldest:
            draft.unlink(missing_ok=True)
            swept += 1
    return swept
