"""What was answered but is not yet in the log store, in files that a kill of the process leaves whole.

Before an answer goes out its rows are written to the end of a file, in one piece with those of all answers that go out
together: into the operating system's memory, not to the disk, so it costs microseconds. A killed process loses nothing
of it; only a power cut can, and a checksum tells where.
There are two files, because one is emptied while the other is written to. A record is

    u32 CRC-32 of what follows | u32 length of the body | u64 number of its first row | 16 bytes epoch | body

and the body is a chunk (opsengine.chunks): the length of a JSON description, that description, and the columns' bytes
one after another.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from opsengine import chunks
from opsengine.chunks import Chunk, Kind

logger = logging.getLogger(__name__)

HEAD = struct.Struct("<IIQ16s")
NUMBER = struct.Struct("<IQ16s")  # what is behind the checksum
CHECKSUM = struct.Struct("<I")
CHECKED_FROM = 4  # the checksum covers everything behind itself
MOST_PIECES = 1000  # of one write: Linux takes 1,024


def paths(folder: Path) -> tuple[Path, Path]:
    """The two files in the folder of the log."""
    return folder / "tail-0", folder / "tail-1"


class Journal:
    """Two files beside the store. Not safe for several threads: the caller holds a lock, but for `forget_other`."""

    def __init__(self, folder: Path) -> None:
        self._paths = paths(folder)
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for path in self._paths]
        self._highest = [0, 0]  # number of the last row in each file, 0: empty
        self._current = 0
        self._is_failing = False

    def read(self, epoch: bytes, after: int) -> list[Chunk]:
        """Chunks of this epoch with rows behind number `after`, in order, up to the first damaged record of a file."""
        found = [(number, chunk) for path in self._paths for number, chunk in _records(path.read_bytes(), epoch, after)]
        return [chunk for _, chunk in sorted(found, key=lambda pair: pair[0])]

    def add(self, epoch: bytes, first: int, count: int, body: list[bytes]) -> None:
        """Write a chunk's bytes; its first row has this number. On a full disk the rows stay in memory."""
        head = NUMBER.pack(sum(map(len, body)), first, epoch)
        checksum = zlib.crc32(head)
        for piece in body:
            checksum = zlib.crc32(piece, checksum)
        pieces = [CHECKSUM.pack(checksum), head, *body]
        try:
            os.writev(self._files[self._current], pieces if len(pieces) <= MOST_PIECES else [b"".join(pieces)])
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # once, not with every request
                logger.error("The log's journal cannot be written (%s): check the disk of PERSIST_DIR", error)
            self._is_failing = True
        self._highest[self._current] = first + count - 1

    def claim(self, last: int) -> None:
        """Rows up to `last` in the files from before are not in the store yet, and are forgotten once they are."""
        for index, file in enumerate(self._files):
            if os.fstat(file).st_size:
                self._highest[index] = max(1, last)

    def switch(self) -> None:
        """Write to the other file from now on, if that is empty."""
        if not self._highest[1 - self._current]:
            self._current = 1 - self._current

    def forget_other(self, last: int) -> None:
        """Rows up to number `last` are in the store: empty the file that is not written to, if it holds no other.

        Needs no lock: whoever adds has no business there, and to empty a long file takes milliseconds.
        """
        self._forget(1 - self._current, last)

    def forget_current(self, last: int) -> None:
        """The same for the file that is written to."""
        self._forget(self._current, last)

    def _forget(self, index: int, last: int) -> None:
        if 0 < self._highest[index] <= last:
            self._empty(index)

    def clear(self) -> None:
        """Empty both files."""
        for index in range(len(self._files)):
            self._empty(index)

    def close(self) -> None:
        """Close both files."""
        for file in self._files:
            os.close(file)

    def _empty(self, index: int) -> None:
        os.ftruncate(self._files[index], 0)
        self._highest[index] = 0


def _records(content: bytes, epoch: bytes, after: int) -> Iterator[tuple[int, Chunk]]:
    at = 0
    kinds: dict[bytes, Kind] = {}
    while at + HEAD.size <= len(content):
        checksum, length, first, of_epoch = HEAD.unpack_from(content, at)
        start, end = at + HEAD.size, at + HEAD.size + length
        if end > len(content) or zlib.crc32(memoryview(content)[at + CHECKED_FROM : end]) != checksum:
            logger.warning("The log's journal ends in a damaged record: what is behind it is told as a gap")
            return
        if of_epoch == epoch and first > after:
            try:
                yield first, chunks.unpacked(content[start:end], kinds)
            except ValueError:
                logger.warning("The log's journal holds a record of another engine version: told as a gap")
                return
        at = end
