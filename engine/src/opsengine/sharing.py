"""Requests that the engine and its workers share: whoever is free takes the next, and none waits for one of them.

Of quick ones the loop keeps one for itself and runs one a turn, so that it hears of workers in between; for long ones
it has a few threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from opsengine.messages import Reply, Request
from opsengine.workers import Asked, Told, Worker, Workers

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """A request, and where its answer goes."""

    request: Request
    answer: Callable[[Reply], None]


class Owner(Protocol):
    """The server, as tasks need it."""

    def run_here(self, task: Task) -> None:
        """Answer it in the loop."""
        ...

    def run_in_thread(self, task: Task) -> bool:
        """Have a thread answer it; False where none is free. `Sharing.go_on` is to be called when one is again."""
        ...

    def told(self, task: Task) -> Told:
        """What a worker has to know of it."""
        ...

    def ran(self, task: Task, line: Worker, told: Told, body: bytes) -> bool:
        """A worker answered; False where this process has to."""
        ...


class Sharing:
    """To be used in the loop's thread only."""

    def __init__(self, owner: Owner, workers: Workers) -> None:
        self._owner = owner
        self._workers = workers
        self._quick: deque[Task] = deque()
        self._long: deque[Task] = deque()
        self._own: deque[Task] = deque()  # that workers did not answer, whatever the reason
        self._is_turning = False
        self._loop: asyncio.AbstractEventLoop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        self._loop = loop
        self._workers.start(loop, self.go_on)

    def stop(self) -> None:
        """End the workers."""
        self._workers.stop()

    @property
    def is_on(self) -> bool:
        """Whether there is anybody to share with."""
        return self._workers.serving > 0

    def add(self, task: Task, *, is_quick: bool) -> None:
        """Have it answered by whoever is free first."""
        (self._quick if is_quick else self._long).append(task)
        self.go_on()

    def go_on(self) -> None:
        """Give out what there is somebody for."""
        self._ask(self._long, 0)
        self._ask(self._quick, 1)
        for line in (self._own, self._long):
            while line and self._owner.run_in_thread(line[0]):
                line.popleft()
        if self._quick and not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def _ask(self, line: deque[Task], kept: int) -> None:
        """Give tasks to workers until `kept` are left."""
        while len(line) > kept and (free := self._workers.free()) is not None:
            task = line.popleft()
            free.ask(
                self._owner.told(task),
                task.request.body,
                Asked(partial(self._ended, task, free), partial(self._lost, task)),
            )

    def _turn(self) -> None:
        self._is_turning = False
        if self._quick:
            self._owner.run_here(self._quick.popleft())
        self.go_on()

    def _ended(self, task: Task, line: Worker, told: Told, body: bytes) -> None:
        is_done = False
        try:
            is_done = self._owner.ran(task, line, told, body)
        except Exception:  # a caller must not wait for ever
            logger.exception("what a worker answered cannot be used")
        if is_done:
            self._workers.answered += 1
        else:
            self._own.append(task)
        self.go_on()

    def _lost(self, task: Task) -> None:
        self._own.append(task)
        self.go_on()
