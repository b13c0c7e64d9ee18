"""The content-addressed store: every file is named by its sha256 and is whole, or it is not there."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NoReturn, Protocol

from opsengine.errors import NoRoom, RegistryError, RegistryUnavailable

logger = logging.getLogger(__name__)

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SPARE_BYTES = 16 * 2**20  # left free on the disk for logs and state while pulling
READ_BYTES = 1 << 20


class Source(Protocol):
    """Gives the bytes of a blob from `offset` on. The first value says at which offset the bytes really begin."""

    def __call__(self, offset: int) -> tuple[int, Iterator[bytes]]: ...


class ContentStore:
    """Blobs under `<root>/blobs/sha256/`, unfinished ones under `<root>/partial/` from where a pull goes on."""

    def __init__(self, root: Path) -> None:
        self.unpacked = root / "python"  # where Python steps are unpacked
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._lent: dict[str, Path] = {}
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._partial.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob lies. Raises RegistryError for a digest that is not sha256."""
        if not DIGEST.fullmatch(digest):
            raise RegistryError(f"{digest[:80]!r} is not a sha256 digest: publish the pipeline again.")
        return self._lent.get(digest) or self._blobs / digest.removeprefix("sha256:")

    def lend(self, digest: str, path: Path) -> None:
        """Show a file that lies elsewhere as the blob of this digest, which the caller has checked."""
        self._lent[digest] = path

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here."""
        return self.path(digest).is_file()

    def read(self, digest: str) -> bytes:
        """A small blob (manifest, pipeline.json) as bytes."""
        return self.path(digest).read_bytes()

    def write(self, data: bytes) -> str:
        """Keep small content; returns its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest):
            partial = self._partial / digest.removeprefix("sha256:")
            with partial.open("wb") as file:
                file.write(data)
                self._finish(file, partial, digest)
        return digest

    def pull(self, digest: str, size: int, source: Source) -> None:
        """Stream a blob to disk, going on where an earlier try stopped, and keep it only if its digest is right.

        Raises RegistryUnavailable when the stream ended early (what came is kept), RegistryError on a wrong digest.
        """
        if self.has(digest):
            return
        partial = self._partial / digest.removeprefix("sha256:")
        with partial.open("a+b") as file:
            have = file.tell() if file.tell() <= size else 0
            self.check_room(size - have)
            begin, chunks = source(have) if have < size else (have, iter(()))
            file.truncate(begin)
            seen = _hash_so_far(file)
            received = begin
            for chunk in chunks:
                received += len(chunk)
                if received > size:
                    break
                seen.update(chunk)
                file.write(chunk)
            if received < size:
                raise RegistryUnavailable(f"The transfer of {digest} stopped after {received} of {size} bytes.")
            if received > size or f"sha256:{seen.hexdigest()}" != digest:
                partial.unlink()
                self._reject(digest, resumed=begin > 0)
            self._finish(file, partial, digest)

    def is_intact(self, digest: str) -> bool:
        """Read the blob again; one that changed, or cannot be read, is deleted, so that it is fetched anew.

        A lent one was checked when it was lent, and is not the store's to delete.
        """
        if digest in self._lent:
            return True
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                right = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == digest
        except FileNotFoundError:
            return False
        except OSError as error:
            logger.error("%s cannot be read on this disk (%s): it is fetched again", digest, error.strerror)
            right = False
        else:
            if not right:
                logger.error("%s is damaged on this disk: it is fetched again", digest)
        if not right:
            _remove(path)
        return right

    def missing(self, digest: str, size: int) -> int:
        """Bytes of this blob that are still to be fetched."""
        if self.has(digest):
            return 0
        try:
            have = (self._partial / digest.removeprefix("sha256:")).stat().st_size
        except FileNotFoundError:
            have = 0
        return size - have if have <= size else size

    def keep_only(self, digests: Iterable[str]) -> None:
        """Delete all blobs and unfinished pulls but those of `digests`."""
        keep = {digest.removeprefix("sha256:") for digest in digests}
        for path in [*self._blobs.iterdir(), *self._partial.iterdir()]:
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def check_all(self) -> Iterator[tuple[str, bool | OSError]]:
        """Each blob's digest and whether its content is still right, or why it cannot be read. Deletes nothing."""
        for path in sorted(self._blobs.iterdir()):
            right: bool | OSError
            try:
                with path.open("rb") as file:
                    right = hashlib.file_digest(file, "sha256").hexdigest() == path.name
            except OSError as error:
                right = error
            yield f"sha256:{path.name}", right

    def check_room(self, needed: int) -> None:
        """Raise NoRoom where the disk has no room for so many more bytes."""
        free = shutil.disk_usage(self._blobs).free
        if needed + SPARE_BYTES > free:
            raise NoRoom(
                f"The disk of PERSIST_DIR has {free // 2**20} MiB free, "
                f"but the pipeline needs {needed // 2**20 + 1} MiB more: make room."
            )

    @staticmethod
    def _reject(digest: str, *, resumed: bool) -> NoReturn:
        if resumed:  # perhaps what lay here was damaged: the next try begins at the first byte
            raise RegistryUnavailable(f"The resumed transfer of {digest} did not fit together.")
        raise RegistryError(
            f"What the registry sent for {digest} is something else: its copy is damaged, publish the pipeline again."
        )

    def _finish(self, file: IO[bytes], partial: Path, digest: str) -> None:
        """Rename once the content is on the disk, then put the name itself there: a power cut leaves all or nothing."""
        file.flush()
        os.fsync(file.fileno())
        partial.replace(self.path(digest))
        sync_folder(self._blobs)


def _remove(path: Path) -> None:
    if path.is_dir():  # what some tools that check a disk leave
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _hash_so_far(file: IO[bytes]) -> "hashlib._Hash":
    seen = hashlib.sha256()
    file.seek(0)
    while block := file.read(READ_BYTES):
        seen.update(block)
    return seen


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a small file as a whole, durably."""
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
