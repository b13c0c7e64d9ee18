"""What a blob is, and how it is read while it is sent."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol, Self

from publishing.oci.faults import RegistryFault

Progress = Callable[[int], None]
"""Told how many bytes more are there: negative when a broken upload begins again. It may raise to stop the push."""


class Source(Protocol):
    """What a blob is read from. `seek` is called at most once, before the first read, with an absolute offset."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Blob:
    """Content that is known by its digest before it is read. `title` names it to people."""

    digest: str
    size: int
    media_type: str
    title: str
    open: Callable[[], Source]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def descriptor(self) -> dict[str, object]:
        """The OCI content descriptor."""
        found: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def of_bytes(content: bytes, media_type: str, title: str, annotations: Mapping[str, str] | None = None) -> Blob:
    """A small blob that is held in memory."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Blob(digest, len(content), media_type, title, lambda: BytesIO(content), annotations or {})


class Body:
    """A blob, or the part of it from `first` on, as a request body that counts what was read and can begin again."""

    def __init__(self, blob: Blob, progress: Progress, first: int = 0, size: int | None = None) -> None:
        self._blob = blob
        self._progress = progress
        self._first = first
        self._size = blob.size - first if size is None else size
        self._source: Source | None = None
        self._sent = 0

    def begin(self) -> Self:
        """Opens the content, also again. Raises `RegistryFault` when the stored file is gone."""
        self.close()
        self.take_back()
        try:
            self._source = self._blob.open()
            if self._first:
                self._source.seek(self._first)
        except OSError as exc:
            raise RegistryFault(f"The stored file of {self._blob.title} cannot be read ({exc.strerror}).") from exc
        return self

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; counted before they travel, so that a stop is heard here."""
        assert self._source is not None
        left = self._size - self._sent
        piece = self._source.read(left if size < 0 else min(size, left)) if left else b""
        if left and not piece:
            have = self._first + self._sent
            raise RegistryFault(
                f"The stored file of {self._blob.title} has {have} bytes, not {self._blob.size}: upload it again."
            )
        self._sent += len(piece)
        self._progress(len(piece))
        return piece

    def take_back(self) -> None:
        """What was counted did not arrive."""
        if self._sent:
            self._progress(-self._sent)
            self._sent = 0

    def close(self) -> None:
        """Closes the content."""
        if self._source:
            self._source.close()
            self._source = None
