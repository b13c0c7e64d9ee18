"""Blobs: bytes under their digest, visible only in the repositories that received or mounted them.

A repository's blob is a hard link to the shared copy. So content is stored once, a mount costs nothing, and the
filesystem itself counts who still needs the bytes: no garbage collector, no lock.
"""

import errno
from pathlib import Path

from registry.durable import link_file, remove_file
from registry.errors import BlobUnknown
from registry.references import Digest
from registry.storage import Repository


def blob_for(repository: Repository, digest: Digest) -> Path:
    """The file of a blob. Raises BlobUnknown when this repository does not hold it."""
    path = repository.blob(digest)
    if not path.is_file():
        raise unknown(repository, digest)
    return path


def unknown(repository: Repository, digest: Digest) -> BlobUnknown:
    """The refusal of a blob that this repository does not hold."""
    return BlobUnknown(f"The repository {repository.name} holds no blob {digest}.", {"digest": str(digest)})


def store(repository: Repository, digest: Digest, content: Path) -> None:
    """Show `content`, a checked and synced scratch file, as a blob of the repository. The caller removes `content`."""
    shared = repository.shared_blob(digest)
    link_file(content, shared)
    try:
        link_file(shared, repository.blob(digest))
    except FileNotFoundError:
        # The last other repository deleted the blob between the two links.
        link_file(content, repository.blob(digest))
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        # A filesystem allows so many names for a file (ext4: 65,000): this repository gets a copy of its own.
        link_file(content, repository.blob(digest))


def mount(repository: Repository, digest: Digest, source: Path) -> bool:
    """Show the blob at `source` (another repository's or the shared copy) here too. False: upload it."""
    try:
        link_file(source, repository.blob(digest))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        return False
    return True


def delete(repository: Repository, digest: Digest) -> None:
    """Remove a blob from the repository, and its bytes with the last repository that held them. Raises BlobUnknown."""
    path = blob_for(repository, digest)
    remove_file(path)
    shared = repository.shared_blob(digest)
    try:
        unused = shared.stat().st_nlink == 1
    except FileNotFoundError:
        return
    # A mount that links the shared copy at this very moment keeps its bytes: only this name of them goes.
    if unused:
        remove_file(shared)
