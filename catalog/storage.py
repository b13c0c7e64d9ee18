"""Model files, found by their digest: one file a digest under `settings.MODEL_ROOT`, written once, never changed."""

import hashlib
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from django.conf import settings
from django.utils.translation import gettext as _

from common.errors import StorageFull, TooLarge


def path_of(sha256: str) -> Path:
    """Where the file with this digest (hex) is, or would be."""
    return Path(settings.MODEL_ROOT) / sha256[:2] / sha256


def open_file(sha256: str) -> BinaryIO:
    """The file's bytes. Raises `FileNotFoundError`."""
    return path_of(sha256).open("rb")


class Writer:
    """Takes a file in pieces, hashing while it writes.

    `keep` makes it visible; leaving the block without it leaves nothing.
    """

    def __init__(self) -> None:
        folder = Path(settings.MODEL_ROOT) / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        self.draft = folder / uuid.uuid4().hex
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = self.draft.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Removes what was not kept."""
        self._file.close()
        self.draft.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Appends. Raises `TooLarge` past `settings.MODEL_MAX_BYTES`, `StorageFull` when the disk is full."""
        self.size += len(piece)
        if self.size > settings.MODEL_MAX_BYTES:
            raise TooLarge(
                _("A model may have at most %(model_max_bytes)s bytes (OPSCENTER_MODEL_MAX_BYTES).")
                % {"model_max_bytes": settings.MODEL_MAX_BYTES},
                limit=settings.MODEL_MAX_BYTES,
            )
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as exc:
            raise StorageFull(
                _("The model cannot be stored: %(reason)s. Nothing was kept.") % {"reason": exc.strerror}
            ) from exc

    @property
    def sha256(self) -> str:
        """The digest (hex) of what was written so far."""
        return self._hash.hexdigest()

    def keep(self) -> str:
        """Makes the file durable and visible under its digest, which it returns. Raises `StorageFull`."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            final = path_of(self.sha256)
            final.parent.mkdir(parents=True, exist_ok=True)
            self.draft.rename(final)
            folder = os.open(final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StorageFull(
                _("The model cannot be stored: %(reason)s. Nothing was kept.") % {"reason": exc.strerror}
            ) from exc
        return self.sha256
