"""Users of the system: from root to an ordinary one, for images that are started as root, because
`docker run -v ./data:/persist` makes a folder of root's, which an image with a fixed user could not write to; and what
is told a user who may not read what the engine keeps.
"""

import os
from pathlib import Path

from opsengine.errors import SettingsError, StateError


def refusal(error: PermissionError) -> str:
    """Why something of PERSIST_DIR cannot be read, and as which user to try: what is unreadable is not damaged."""
    path, user = Path(str(error.filename)), os.geteuid()
    told = f"{path} cannot be read by user {user} ({error.strerror})"
    owner = _owner(path)
    if owner == user:  # it has taken the right from itself, or the system has another reason
        return f"{told}, who owns it: give that user the right to read it, or run this as root"
    return f"{told}: run this as user {owner}, who owns it"


def _owner(path: Path) -> int:
    """Of the file, or, where not even that can be looked at, of the nearest folder that can."""
    for one in (path, *path.parents):
        try:
            return one.stat().st_uid
        except OSError:
            continue
    return 0


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
