"""From root to an ordinary user, for images that are started as root: `docker run -v ./data:/persist` makes a folder of
root's, which an image with a fixed user could not write to.
"""

import os
from pathlib import Path

from opsengine.errors import SettingsError, StateError


def drop(run_as: str | None, folder: Path) -> None:
    """Become user and group `run_as` (a number), after taking `folder` over for it. Not root, or none given: nothing.

    Raises SettingsError for a wrong number, StateError where the system does not allow it.
    """
    if run_as is None:
        return
    if not (run_as.isascii() and run_as.isdigit()) or not 0 < int(run_as) < 2**31:
        raise SettingsError(f"RUN_AS is {run_as!r}: give the number of a user other than root.")
    if os.geteuid() != 0:
        return
    user = int(run_as)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            if path.lstat().st_uid != user:
                os.chown(path, user, user, follow_symlinks=False)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    except OSError as error:
        raise StateError(
            f"PERSIST_DIR {folder} cannot be given to user {user} ({error.strerror}): "
            f"start with --user {user} and a volume that this user may write to."
        ) from error
