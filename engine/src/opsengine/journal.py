"""What was answered but is not yet in the log store, in files that a kill of the process leaves whole.

Before an answer goes out its rows are written to the end of a file, in one piece with those of all answers that go out
together: into the operating system's memory, not to the disk, so it costs microseconds. A killed process loses nothing
of it; only a power cut can, and a checksum tells where.
There are two files, because one is emptied while the other is written to. A record is

    u32 CRC-32 of what follows | u32 length of the body | u64 number of its first row | 16 bytes epoch | body

and the body is a chunk (opsengine.chunks): the length of a JSON description, that description, and the columns' bytes
one after another. Behind the last record stand eight zeros. A file that is emptied keeps its room and is written from
its beginning again: to take the blocks back and give them out anew cost more than the rows. What then stands behind
the zeros is of rows that are in the store.
"""

import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from opsengine import chunks
from opsengine.chunks import Chunk

logger = logging.getLogger(__name__)

HEAD = struct.Struct("<IIQ16s")
NUMBER = struct.Struct("<IQ16s")  # what is behind the checksum
CHECKSUM = struct.Struct("<I")
CHECKED_FROM = 4  # the checksum covers everything behind itself
END = bytes(8)  # in the place of the next record's checksum and length
MOST_PIECES = 1000  # of one write: Linux takes 1,024
KEPT_BYTES = 4 * 2**20  # of an emptied file


def paths(folder: Path) -> tuple[Path, Path]:
    """The two files in the folder of the log."""
    return folder / "tail-0", folder / "tail-1"


def size_of(body: Sequence[bytes]) -> int:
    """Bytes that a record takes at most."""
    return HEAD.size + sum(map(len, body)) + len(END)


class Journal:
    """Two files beside the store, emptied to `room` bytes each where that is less than is kept else.

    Not safe for several threads: the caller holds a lock, but for `forget_other`.
    """

    def __init__(self, folder: Path, room: int = KEPT_BYTES) -> None:
        self._kept = min(KEPT_BYTES, room)
        self._paths = paths(folder)
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in self._paths]
        self._ends = [0, 0]  # where the last record of each file ends
        self._highest = [0, 0]  # number of the last row in each file, 0: empty
        self._current = 0
        self._is_failing = False

    def read(self, epoch: bytes, after: int) -> list[Chunk]:
        """Chunks of this epoch with rows behind number `after`, in order, up to the first damaged record of a file."""
        found: list[tuple[int, Chunk]] = []
        for index, path in enumerate(self._paths):
            content = path.read_bytes()
            for record in _records(content):
                self._ends[index] = record.end
                if record.epoch != epoch or record.first <= after:
                    continue
                try:
                    found.append((record.first, chunks.unpacked(content[record.start : record.end])))
                except ValueError:
                    logger.warning("The log's journal holds a record of another engine version: told as a gap")
                    break
        return [chunk for _, chunk in sorted(found, key=lambda pair: pair[0])]

    def add(self, epoch: bytes, first: int, count: int, body: list[bytes]) -> None:
        """Write a chunk's bytes; its first row has this number. On a full disk the rows stay in memory."""
        head = NUMBER.pack(sum(map(len, body)), first, epoch)
        checksum = zlib.crc32(head)
        for piece in body:
            checksum = zlib.crc32(piece, checksum)
        try:
            self._write([CHECKSUM.pack(checksum), head, *body, END])
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # once, not with every request
                logger.error("The log's journal cannot be written (%s): check the disk of PERSIST_DIR", error)
            self._is_failing = True
        self._highest[self._current] = first + count - 1

    def _write(self, pieces: Sequence[bytes]) -> None:
        """Raises OSError; the next record then takes the place of what was written of this one."""
        file, end, size = self._files[self._current], self._ends[self._current], sum(map(len, pieces))
        if os.pwritev(file, pieces if len(pieces) <= MOST_PIECES else [b"".join(pieces)], end) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as much as there was room for
        self._ends[self._current] = end + size - len(END)

    def claim(self, last: int) -> None:
        """Rows up to `last` in the files from before are not in the store yet, and are forgotten once they are."""
        for index, end in enumerate(self._ends):
            if end:
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
        file = self._files[index]
        size = os.fstat(file).st_size
        try:
            if size > self._kept:
                os.ftruncate(file, self._kept)
            if size:
                os.pwrite(file, END, 0)
        except OSError:  # a file system that writes what is written over to a new place, without room for one
            os.ftruncate(file, 0)
        self._ends[index] = 0
        self._highest[index] = 0  # last: from now on the other thread may write to it


class Record(NamedTuple):
    """A whole record of a file: number of its first row, epoch, and where its body stands."""

    first: int
    epoch: bytes
    start: int
    end: int


def _records(content: bytes) -> Iterator[Record]:
    at = 0
    while at + HEAD.size <= len(content) and not content.startswith(END, at):
        checksum, length, first, epoch = HEAD.unpack_from(content, at)
        start, end = at + HEAD.size, at + HEAD.size + length
        if end > len(content) or zlib.crc32(memoryview(content)[at + CHECKED_FROM : end]) != checksum:
            logger.warning("The log's journal ends in a damaged record: what is behind it is told as a gap")
            return
        yield Record(first, epoch, start, end)
        at = end
