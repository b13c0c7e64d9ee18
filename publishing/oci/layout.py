"""An OCI image layout in one tar file (image-spec, "Image Layout"), written and read at constant memory.

The same content gives the same bytes: entries in order of their digest, no times, no owners.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from publishing.oci.faults import RegistryFault

VERSION = b'{"imageLayoutVersion":"1.0.0"}'
MOST_SMALL = 4 * 1024 * 1024  # bytes of an index or manifest
MOST_ENTRIES = 100_000
BLOCK = 512

_BLOB = re.compile(r"(?:\./)?blobs/sha256/(?P<hex>[0-9a-f]{64})\Z")


class BadLayout(Exception):
    """The file is not a layout that can be used. `message` is for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Entry:
    """A blob to be written: its bytes come in pieces, when their turn has come."""

    digest: str
    size: int
    pieces: Callable[[], Iterator[bytes]]


def write(file: BinaryIO, index: Mapping[str, Any], entries: Mapping[str, Entry]) -> None:
    """The whole tar. Raises `RegistryFault` when an entry is not what its digest says."""
    small = {"oci-layout": VERSION, "index.json": packed(index)}
    for name, content in small.items():
        file.write(_header(name, len(content)))
        _pad(file, len(content), file.write(content))
    for digest in sorted(entries):
        entry = entries[digest]
        file.write(_header(f"blobs/sha256/{digest.removeprefix('sha256:')}", entry.size))
        _pad(file, entry.size, _copy(entry, file))
    file.write(bytes(2 * BLOCK))


def packed(value: object) -> bytes:
    """JSON in one form only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Layout:
    """A layout's tar, open for reading: `with Layout(path) as found`. Raises `BadLayout`, `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._blobs: dict[str, tuple[int, int]] = {}
        self._small: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                self._read(tar)
        except tarfile.TarError as exc:
            raise BadLayout(f"{path.name} is not an uncompressed tar file, or it is cut short.") from exc
        if "oci-layout" not in self._small or "index.json" not in self._small:
            raise BadLayout(f"{path.name} has no oci-layout and index.json: it is no OCI layout.")
        self.index = _object(self._small["index.json"], "index.json")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._small.clear()

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises `BadLayout` when it is not there."""
        return self._place(digest)[1]

    def small(self, digest: str) -> bytes:
        """A manifest's or index's bytes, checked. Raises `BadLayout`."""
        if self.size(digest) > MOST_SMALL:
            raise BadLayout(f"{digest} is named as a manifest and has more than {MOST_SMALL} bytes.")
        with self.open(digest) as file:
            content = file.read()
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise BadLayout(f"The file was changed or damaged: {digest} has other bytes.")
        return content

    def open(self, digest: str) -> BinaryIO:
        """A blob, from its beginning; each has a file of its own, so threads may read several. Raises `BadLayout`."""
        offset, size = self._place(digest)
        return io.BufferedReader(_Slice(self._path, offset, size))

    def _place(self, digest: str) -> tuple[int, int]:
        try:
            return self._blobs[digest]
        except KeyError:
            raise BadLayout(f"The file names {digest[:80]} and does not have it.") from None

    def _read(self, tar: tarfile.TarFile) -> None:
        for number, member in enumerate(tar):
            if number >= MOST_ENTRIES:
                raise BadLayout(f"The file has more than {MOST_ENTRIES} entries.")
            if not member.isreg() or member.issparse():
                continue
            if found := _BLOB.match(member.name):
                self._blobs[f"sha256:{found['hex']}"] = member.offset_data, member.size
            elif (name := member.name.removeprefix("./")) in {"oci-layout", "index.json"}:
                if member.size > MOST_SMALL:
                    raise BadLayout(f"{name} has more than {MOST_SMALL} bytes.")
                file = tar.extractfile(member)
                assert file is not None  # it is a regular file
                self._small[name] = file.read()


class _Slice(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        left = max(0, self._size - self._at)
        with memoryview(buffer) as whole, whole.cast("B")[: min(len(whole), left)] as room:
            count = self._file.readinto(room)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _copy(entry: Entry, file: BinaryIO) -> int:
    found, count = hashlib.sha256(), 0
    for piece in entry.pieces():
        count += len(piece)
        if count > entry.size:
            break
        found.update(piece)
        file.write(piece)
    if count != entry.size or f"sha256:{found.hexdigest()}" != entry.digest:
        raise RegistryFault(f"The registry sent other bytes than those of {entry.digest}: publish again.")
    return count


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    # GNU: sizes of 8 GiB and more without an extra entry, in a form that every reader knows.
    return entry.tobuf(tarfile.GNU_FORMAT)


def _pad(file: BinaryIO, size: int, written: int) -> None:
    if written != size:
        raise OSError(f"{written} of {size} bytes were written")
    file.write(bytes(-size % BLOCK))


def _object(content: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as exc:
        raise BadLayout(f"{name} is not JSON.") from exc
    if not isinstance(found, dict):
        raise BadLayout(f"{name} is not a JSON object.")
    return found
