"""Files that are either wholly there or not there at all, also after a power cut.

Everything lives in one filesystem under the registry's root, so links and renames are atomic.
"""

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from registry.errors import StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: OSError) -> bool:
    """Whether the operating system refused for want of space or quota."""
    return error.errno in _FULL


def storage_full() -> StorageFull:
    """The refusal of a write that found no room."""
    return StorageFull(
        "The registry's disk is full: free space in its folder or delete what is not needed, then push again."
    )


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: an fsync of a file does not cover the entry that names it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> Path:
    """Create `folder` and its missing parents, each durably, and return it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    return folder


def write_file(target: Path, content: bytes, scratch: Path) -> None:
    """Replace `target` by `content`, atomically and durably, by way of the folder `scratch`. Raises StorageFull."""
    temporary = make_folder(scratch) / f"write-{uuid.uuid4()}"
    try:
        make_folder(target.parent)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if is_full(error):
            raise storage_full() from error
        raise


def link_file(source: Path, target: Path) -> None:
    """Give `source` a second name, durably. A target that is there stays. Raises FileNotFoundError without a source."""
    make_folder(target.parent)
    with suppress(FileExistsError):
        target.hardlink_to(source)
    sync_folder(target.parent)


def remove_file(path: Path) -> bool:
    """Remove `path` durably; False when it was not there."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    sync_folder(path.parent)
    return True
