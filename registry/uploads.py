"""Upload sessions: a file in the scratch folder that grows, and becomes a blob once its digest was checked.

Nothing else is stored: the file's length is the session's offset and its modification time the last activity, so a
session outlives the process, and a killed upload leaves only a scratch file that nobody can read.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import FileIO
from pathlib import Path

from registry import blobs
from registry.durable import is_full, make_folder, storage_full
from registry.errors import ChunkOutOfOrder, DigestInvalid, SizeInvalid, UploadBusy, UploadUnknown
from registry.references import Digest
from registry.running_hashes import RunningHashes
from registry.storage import Repository

# Of practically every blob. A client names another one only when it closes the upload: then the file is read again.
_USUAL_ALGORITHM = "sha256"

_hashes = RunningHashes()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The inclusive byte range of a `Content-Range` header."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brings: pieces of at most 1 MiB, their announced total if any, and the announced range if any."""

    pieces: Iterable[bytes]
    length: int | None = None
    chunk: Chunk | None = None


def start(repository: Repository) -> str:
    """Begin an upload and return its id."""
    upload_id = str(uuid.uuid4())
    try:
        make_folder(repository.scratch)
        repository.upload(upload_id).touch(exist_ok=False)
    except OSError as error:
        if is_full(error):
            raise storage_full() from error
        raise
    return upload_id


def offset(repository: Repository, upload_id: str) -> int:
    """How many bytes of the upload are here. Raises UploadUnknown."""
    path = _known(repository, upload_id)
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise _unknown(upload_id) from None


def append(repository: Repository, upload_id: str, body: Body) -> int:
    """Add a request's bytes to the upload and return its new length.

    Raises UploadUnknown, UploadBusy, ChunkOutOfOrder, SizeInvalid (not as many bytes as announced), and StorageFull,
    which ends the upload.
    """
    path = _known(repository, upload_id)
    with _locked(path, upload_id) as file:
        return _receive(file, path, upload_id, body, _USUAL_ALGORITHM)


def finish(repository: Repository, upload_id: str, digest: Digest, body: Body) -> None:
    """Add the last bytes, if any, and turn the upload into the blob `digest` of the repository.

    Raises what `append` raises, and DigestInvalid when the bytes have another digest, which ends the upload.
    """
    path = _known(repository, upload_id)
    with _locked(path, upload_id) as file:
        size = _receive(file, path, upload_id, body, digest.algorithm)
        actual = _digest_of(file, upload_id, size, digest)
        try:
            if actual != digest:
                raise DigestInvalid(
                    f"The {size} bytes received have the digest {actual}, not {digest}: send the blob again.",
                    {"digest": str(digest)},
                )
            os.fsync(file.fileno())
            blobs.store(repository, digest, path)
        except OSError as error:
            if is_full(error):
                raise storage_full() from error
            raise
        finally:
            path.unlink(missing_ok=True)


def cancel(repository: Repository, upload_id: str) -> None:
    """Drop the upload and its bytes. Raises UploadUnknown, and UploadBusy while another request writes it."""
    path = _known(repository, upload_id)
    with _locked(path, upload_id):
        _hashes.take(upload_id, -1)
        path.unlink(missing_ok=True)


def drop(repository: Repository, upload_id: str) -> None:
    """Drop what is left of an upload whose id was never given out. Does nothing when it was finished."""
    repository.upload(upload_id).unlink(missing_ok=True)


def sweep(scratch: Path, older_than: timedelta) -> int:
    """Remove scratch files untouched for `older_than`; return how many. One that is being written stays."""
    limit = time.time() - older_than.total_seconds()
    removed = 0
    for path in scratch.iterdir() if scratch.is_dir() else ():
        try:
            if path.stat().st_mtime >= limit:
                continue
            with _locked(path, path.name):
                path.unlink()
        except (UploadUnknown, UploadBusy, FileNotFoundError):
            continue
        removed += 1
    return removed


def _known(repository: Repository, upload_id: str) -> Path:
    try:
        canonical = str(uuid.UUID(upload_id))
    except ValueError:
        raise _unknown(upload_id) from None
    if canonical != upload_id:
        raise _unknown(upload_id)
    return repository.upload(upload_id)


def _unknown(upload_id: str) -> UploadUnknown:
    return UploadUnknown(f"There is no upload {upload_id[:64]!r} in this repository: begin a new one.")


@contextmanager
def _locked(path: Path, upload_id: str) -> Iterator[FileIO]:
    """Open the upload's file for this request alone, at its end."""
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise _unknown(upload_id) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UploadBusy("Another request writes this upload: wait, then ask for the offset and go on.") from None
        # Between opening and locking another request may have closed the upload: then these bytes are a blob by now, so
        # the file has other names (a crash may have kept this one too), and they must never be written again.
        if os.fstat(file.fileno()).st_nlink != 1:
            path.unlink(missing_ok=True)
            raise _unknown(upload_id)
        file.seek(0, os.SEEK_END)
        yield file


def _receive(file: FileIO, path: Path, upload_id: str, body: Body, algorithm: str) -> int:
    """Write the body at the end of `file` and hash it as it passes; return the new length."""
    before = file.tell()
    _check_order(body, before)
    state = hashlib.new(algorithm) if before == 0 else _hashes.take(upload_id, before)
    try:
        _check_room(path, body.length)
        for piece in body.pieces:
            _write(file, piece)
            if state is not None:
                state.update(piece)
    except OSError as error:
        if not is_full(error):
            raise
        path.unlink(missing_ok=True)
        raise storage_full() from error
    size = file.tell()
    _check_length(file, body, before)
    if state is not None:
        _hashes.keep(upload_id, size, state)
    return size


def _check_order(body: Body, before: int) -> None:
    if body.chunk is None:
        return
    if body.chunk.first != before:
        raise ChunkOutOfOrder(
            f"The chunk begins at byte {body.chunk.first}, but the next one here is {before}.", before
        )
    if body.length is not None and body.length != body.chunk.size:
        raise SizeInvalid(
            f"Content-Range announces {body.chunk.size} bytes, Content-Length {body.length}: they must agree."
        )


def _check_room(path: Path, length: int | None) -> None:
    """Refuse at once what cannot fit, rather than fill the disk that the center's database may share."""
    if length is not None and length > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check_length(file: FileIO, body: Body, before: int) -> None:
    received = file.tell() - before
    if body.length is not None and received != body.length:
        # The connection broke. What came is in order and stays: the client may ask for the offset and go on.
        raise SizeInvalid(
            f"The connection ended after {received} of {body.length} bytes: ask for the offset and send the rest."
        )
    if body.chunk is not None and received != body.chunk.size:
        file.truncate(before)
        raise SizeInvalid(
            f"Content-Range announces {body.chunk.size} bytes, but {received} came: send the chunk again."
        )


def _write(file: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        # Unbuffered, so that a full disk is found here; such a write may take only a part.
        rest = rest[file.write(rest) :]


def _digest_of(file: FileIO, upload_id: str, size: int, wanted: Digest) -> Digest:
    """The digest of the whole upload: from the running state, or by reading the file when that is not known here."""
    state = _hashes.take(upload_id, size)
    if state is None or state.name != wanted.algorithm:
        file.seek(0)
        state = hashlib.file_digest(file, wanted.algorithm)
    return Digest(wanted.algorithm, state.hexdigest())
