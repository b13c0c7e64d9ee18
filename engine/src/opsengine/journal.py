"""What was answered but is not yet in the log store, in files that a kill of the process leaves whole.

Before an answer goes out its rows are written to the end of a file: into the operating system's memory, not to the
disk, so it costs microseconds. A killed process loses nothing of it; only a power cut can, and a checksum tells where.
There are two files, because one is emptied while the other is written to. A record is

    u32 CRC-32 of what follows | u32 length of the body | u64 number of its first row | 16 bytes epoch | body

and the body is the length of a JSON description, that description, and the columns' bytes one after another.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson

from opsengine.fields import Array, Field
from opsengine.rows import Answering, Facts, Result

logger = logging.getLogger(__name__)

HEAD = struct.Struct("<IIQ16s")
LENGTH = struct.Struct("<I")
CHECKED_FROM = 4  # the checksum covers everything behind itself


def paths(folder: Path) -> tuple[Path, Path]:
    """The two files in the folder of the log."""
    return folder / "tail-0", folder / "tail-1"


class Journal:
    """Two files beside the store. Not safe for several threads: the caller holds a lock."""

    def __init__(self, folder: Path) -> None:
        self._paths = paths(folder)
        self._files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for path in self._paths]
        self._highest = [0, 0]  # number of the last row in each file, 0: empty
        self._current = 0
        self._is_failing = False

    def read(self, epoch: bytes, after: int) -> list[Result]:
        """Results of this epoch with rows behind number `after`, in order, up to the first damaged record of a file."""
        found = [
            (number, result) for path in self._paths for number, result in _records(path.read_bytes(), epoch, after)
        ]
        return [result for _, result in sorted(found, key=lambda pair: pair[0])]

    def add(self, epoch: bytes, first: int, result: Result, body: bytes) -> None:
        """Write a result whose first row has this number. A full disk is not an error: the rows are still in memory."""
        tail = LENGTH.pack(len(body)) + struct.pack("<Q16s", first, epoch)
        checksum = zlib.crc32(body, zlib.crc32(tail))
        try:
            os.writev(self._files[self._current], (LENGTH.pack(checksum), tail, body))
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:  # once, not with every request
                logger.error("The log's journal cannot be written (%s): check the disk of PERSIST_DIR", error)
            self._is_failing = True
        self._highest[self._current] = first + result.count - 1

    def claim(self, last: int) -> None:
        """What lies in the files from before, up to row `last`, is not in the store yet: `forget` is to empty them."""
        for index, file in enumerate(self._files):
            if os.fstat(file).st_size:
                self._highest[index] = max(1, last)

    def switch(self) -> None:
        """Write to the other file from now on, if that is empty."""
        if not self._highest[1 - self._current]:
            self._current = 1 - self._current

    def forget(self, last: int) -> None:
        """Rows up to number `last` are in the store: empty the files that hold no other."""
        for index, highest in enumerate(self._highest):
            if 0 < highest <= last:
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


def body_of(result: Result) -> bytes:
    """A record's body. Raises TypeError for columns that JSON cannot describe."""
    described: list[object] = []
    buffers: list[bytes] = []
    arms: dict[str, Field] = {} if result.arms is None else {"": result.arms}
    groups: list[Mapping[str, Field]] = [result.inputs, result.outputs, result.checks, arms, *result.recorded.values()]
    for group in groups:
        described.append([_described(name, value, buffers) for name, value in group.items()])
    facts, rest = tuple(result.facts), (result.dropped, list(result.recorded))
    head = orjson.dumps(
        [facts, result.time, result.count, result.elapsed, described, *rest], option=orjson.OPT_SERIALIZE_NUMPY
    )
    return b"".join((LENGTH.pack(len(head)), head, *buffers))


def _described(name: str, value: Field, buffers: list[bytes]) -> list[object]:
    if not isinstance(value, np.ndarray):
        return [name, "list", value]
    if value.dtype.kind not in "biuf":
        return [name, "text", value.tolist()]
    buffers.append(value.tobytes())
    return [name, value.dtype.str, value.shape]


def _records(content: bytes, epoch: bytes, after: int) -> Iterator[tuple[int, Result]]:
    at = 0
    while at + HEAD.size <= len(content):
        checksum, length, first, of_epoch = HEAD.unpack_from(content, at)
        start, end = at + HEAD.size, at + HEAD.size + length
        if end > len(content) or zlib.crc32(memoryview(content)[at + CHECKED_FROM : end]) != checksum:
            logger.warning("The log's journal ends in a damaged record: what is behind it is told as a gap")
            return
        if of_epoch == epoch and first > after:
            yield first, _result(content[start:end])
        at = end


def _result(body: bytes) -> Result:
    (length,) = LENGTH.unpack_from(body)
    told = orjson.loads(body[LENGTH.size : LENGTH.size + length])
    facts, time, count, elapsed, described, dropped, labels = told
    at = LENGTH.size + length
    groups: list[dict[str, Field]] = []
    for columns in described:
        group: dict[str, Field] = {}
        for name, kind, value in columns:
            if kind == "list":
                group[name] = value
            elif kind == "text":
                group[name] = np.array(value, dtype=object)
            else:
                array = np.frombuffer(body, np.dtype(kind), int(np.prod(value, dtype=np.int64)), at).reshape(value)
                at += array.nbytes
                group[name] = array
        groups.append(group)
    inputs, outputs, checks, arms, *recorded = groups
    return Result(
        Facts(*facts)._replace(arms=tuple(Answering(*one) for one in facts[-1])),
        time,
        count,
        inputs,
        outputs,
        tuple(elapsed),
        _arrays(checks),
        dict(zip(labels, recorded, strict=True)),
        _arrays(arms).get(""),
        tuple(dropped),
    )


def _arrays(group: dict[str, Field]) -> dict[str, Array]:
    return {name: value for name, value in group.items() if isinstance(value, np.ndarray)}
