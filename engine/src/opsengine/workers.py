"""Processes beside the engine's own that hold the pipeline too (ENGINE_WORKERS): more cores for requests of many rows.

Such requests are bound by Python, which runs on one core a process. A worker (opsengine.worker) decodes, runs and
prints as the engine does; callers, admission and the log stay with the engine, so that there is one of each. Nothing
waits for a worker: what none takes the engine answers itself, and so it does with what one had under way that died.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from opsengine import worker
from opsengine.pipeline import LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.pymodel import PASSED_ON

logger = logging.getLogger(__name__)

DEPTH = 2  # requests that a worker has at once: the next is there when it has answered one
LOOK_SECONDS = 0.5  # between looks at what is served
START_SECONDS = 300.0  # to load the pipeline
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # before another is started for one that ended
END_SECONDS = 5.0
LINE_BYTES = 2**20  # of a line's buffers, as far as the system allows: an answer then goes out in one piece

Told = dict[str, Any]


class Asked(NamedTuple):
    """What becomes of a request: `ended` is called with the head and the body that came back, or `lost`."""

    ended: Callable[[Told, bytes], None]
    lost: Callable[[], None]


class Worker(asyncio.Protocol):
    """The line to one process. To be used in the loop's thread only."""

    def __init__(
        self, process: subprocess.Popen[bytes], pipeline: LoadedPipeline, left: Callable[["Worker"], None]
    ) -> None:
        self.process = process
        self.pipeline = pipeline
        self._left = left
        self._transport: Any = None
        self._under_way: deque[Asked] = deque()
        self._is_ending = False
        self._pieces: list[bytes] = []
        self._had, self._needed = 0, worker.LENGTHS.size

    @property
    def load(self) -> int:
        """Requests that it has."""
        return len(self._under_way)

    @property
    def is_free(self) -> bool:
        """Whether it takes another request."""
        return self.load < DEPTH and not self._is_ending

    def ask(self, told: Told, body: bytes, asked: Asked) -> None:
        """Have it answer a request."""
        self._under_way.append(asked)
        self._transport.writelines(worker.packed(told, body))

    def end(self) -> None:
        """Have it end as soon as it has answered what it has."""
        self._is_ending = True
        if not self._under_way:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._left(self)
        under_way, self._under_way = self._under_way, deque()
        for asked in under_way:
            asked.lost()

    def data_received(self, data: bytes) -> None:
        """Its answers, in any pieces."""
        self._pieces.append(data)
        self._had += len(data)
        while self._had >= self._needed:
            whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            head, body = worker.LENGTHS.unpack_from(whole)
            start = worker.LENGTHS.size + head
            end = start + body
            if self._had < end:
                self._pieces, self._needed = [whole], end
                return
            self._pieces, self._had, self._needed = [whole[end:]], self._had - end, worker.LENGTHS.size
            asked = self._under_way.popleft()
            asked.ended(orjson.loads(whole[worker.LENGTHS.size : start]), whole[start:end])
        if self._is_ending:
            self.end()


class Workers:
    """`count` processes on whatever pipeline is served; a thread sees to that. `limits` is told to each of them."""

    def __init__(self, count: int, plane: DataPlane, limits: Told) -> None:
        self.answered = 0  # requests, since the start
        self._count = count
        self._plane = plane
        self._limits = limits
        self._lines: tuple[Worker, ...] = ()  # changed in the loop's thread only
        self._left: deque[subprocess.Popen[bytes]] = deque()
        self._pause = FIRST_PAUSE
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._on_free: Callable[[], None]

    def start(self, loop: asyncio.AbstractEventLoop, on_free: Callable[[], None]) -> None:
        """Begin. `on_free` is called in the loop when one has come or gone."""
        self._loop, self._on_free = loop, on_free
        if self._count:
            self._thread.start()

    def stop(self) -> None:
        """End them all. In the loop's thread."""
        self._stopping.set()
        self._changed.set()
        for line in self._lines:
            line.end()

    @property
    def serving(self) -> int:
        """How many hold what is served."""
        current = self._plane.current
        return sum(line.pipeline is current for line in self._lines)

    def free(self) -> Worker | None:
        """Of those that hold what is served and take another request the one with the least to do."""
        current = self._plane.current
        found = [line for line in self._lines if line.pipeline is current and line.is_free]
        return min(found, key=lambda line: line.load) if found else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except Exception:
                logger.exception("workers cannot be started")
            self._changed.wait(LOOK_SECONDS)
            self._changed.clear()

    def _look(self) -> None:
        while self._left:
            _reap(self._left.popleft())
        current, lines = self._plane.current, self._lines
        for line in lines:
            if line.pipeline is not current:  # memory for the new ones
                self._loop.call_soon_threadsafe(line.end)
        if current is None or not current.may_be_held_again or len(lines) >= self._count:
            return
        if self._start(current):
            self._changed.set()
            self._pause = FIRST_PAUSE
        else:
            self._stopping.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _start(self, pipeline: LoadedPipeline) -> bool:
        """Start one, and wait until it has loaded the pipeline. False where it cannot."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LINE_BYTES)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "opsengine.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in (*PASSED_ON, "PYTHONPATH") if name in os.environ},
                start_new_session=True,  # a Ctrl-C in the engine's terminal is for the engine to handle
            )
        ours.settimeout(START_SECONDS)
        try:
            worker.send(ours, worker.packed({"source": pipeline.source._asdict(), **self._limits}))
            said, _ = worker.message(ours)
        except (OSError, EOFError):
            said = {"error": "it ended before it was ready"}
        if "error" in said:
            ours.close()
            _reap(process)
            logger.warning("A worker cannot be started (%s): the engine answers without it", said["error"])
            return False
        asyncio.run_coroutine_threadsafe(self._join(ours, process, pipeline), self._loop).result()
        return True

    async def _join(self, line: socket.socket, process: subprocess.Popen[bytes], pipeline: LoadedPipeline) -> None:
        line.setblocking(False)
        _, made = await self._loop.create_connection(lambda: Worker(process, pipeline, self._leave), sock=line)
        self._lines += (made,)
        self._on_free()

    def _leave(self, line: Worker) -> None:
        self._lines = tuple(one for one in self._lines if one is not line)
        self._left.append(line.process)
        self._changed.set()
        self._on_free()


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that has nothing to do any more; tell how it ended if that was no good end."""
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return
    if code < 0:
        logger.warning("A worker was ended by signal %s; what it had under way the engine answers", _name(-code))


def _name(number: int) -> str:
    return signal.Signals(number).name if number in signal.valid_signals() else str(number)
