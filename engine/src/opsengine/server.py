"""The HTTP server: one loop (uvloop) that reads, answers what is quick itself, and hands the rest to a few threads.

Handing a request to a thread and back costs more than running a small model does, and threads that wait for Python's
lock take turns that nobody needs: measured on two cores, a loop that runs small requests itself answers them two to
three times as fast as a pool of threads (docs/engine.md). A long run must not hold up everything, though, so what was
seen to take long goes to the threads.
"""

import asyncio
import errno
import gc
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Protocol

import uvloop

from opsengine.errors import RequestError, SettingsError, StateError
from opsengine.gate import MOST_UNSENT
from opsengine.http1 import Connection
from opsengine.messages import Reply, Request

logger = logging.getLogger(__name__)

BACKLOG = 1024
MOST_CONNECTIONS = 1024
SWEEP_SECONDS = 5.0
MOST_TOGETHER = 32  # requests that run together: each is quick, but they hold up the loop one after another
GRACE_SECONDS = 0.5  # at the end, for callers on open lines to send once more; busy ones do within milliseconds
LATE_SECONDS = 0.5  # that the end of this may come late, where the loop has much to do
# A request that waits for a thread which writes the log gets its turn after this long. With Python's 5 ms the slowest
# hundredth of small requests took two to three times as long (bench/engine, log on).
SWITCH_SECONDS = 0.0005
# Results that wait for the log are many and hold no cycles: with Python's (700, 10, 10) a third of a small request went
# into looking for cycles among them.
COLLECT = (50_000, 20, 50)


class Lane(Enum):
    """Where a request runs."""

    HERE = "in the loop"
    TOGETHER = "in the loop, with what else is asked in the same turn"
    MODEL = "in one of a few threads"
    MEET = "in a thread of its own, to be run together with others"
    SIDE = "beside the inferences"


class Application(Protocol):
    """What is served."""

    largest_body: int

    def admit(self, request: Request) -> Reply | None:
        """Let a request in (`request.admitted`), or say why not."""
        ...

    def grow(self, request: Request, *, is_whole: bool) -> Reply | None:
        """Count more of a request that was let in, or say why not."""
        ...

    def leave(self, request: Request) -> None:
        """A request that was let in has ended."""
        ...

    def lane(self, request: Request) -> Lane:
        """Where it is to run."""
        ...

    def respond(self, request: Request) -> Reply:
        """Answer. Raises nothing."""
        ...

    def respond_together(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer several at once, in their order. Raises nothing."""
        ...

    def settle(self) -> None:
        """See to it that what `respond` answered may go out."""
        ...

    def fault(self, error: RequestError) -> Reply:
        """An error as a reply."""
        ...


class Crew:
    """Up to `size` threads, started when they are needed. They do not keep the process from ending."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = 0
        self._open = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Do it as soon as a thread is free. From the loop's thread only, like `done`."""
        self._open += 1
        if self._open > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()
        self._work.put(work)

    def done(self) -> None:
        """What was submitted has ended."""
        self._open -= 1

    def _run(self) -> None:
        while True:
            self._work.get()()


class Server:
    """Serves an application on one address; `slots` long requests run at once, and `queue` more may wait."""

    def __init__(self, app: Application, host: str, port: int, slots: int, queue: int) -> None:
        self._app = app
        self._socket = bound(host, port)
        self._crews = {
            Lane.MODEL: Crew("model", slots),
            Lane.MEET: Crew("batch", slots + queue),
            Lane.SIDE: Crew("side", 2),
        }
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._connections: set[Connection] = set()
        self._stalled: dict[Connection, int] = {}  # bytes of answers that were not taken when each was last looked at
        self._unsent = 0  # the sum of these: what was taken since is still in it
        self._listener: asyncio.AbstractServer | None = None
        self._asked: list[tuple[Callable[[Reply], None], Request]] = []  # in this turn of the loop, to run together
        self._answers: list[tuple[Callable[[Reply], None], Reply]] = []  # made in this turn
        self._is_turning = False  # there are some
        self.largest_body = app.largest_body
        self.is_draining = False

    def start(self) -> None:
        """Listen and serve."""
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is here now stays
        gc.set_threshold(*COLLECT)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Take no new connections and wait for requests under way; False when `timeout` seconds were not enough."""
        if not self._thread.is_alive():
            self._socket.close()
            return True
        try:
            drained = asyncio.run_coroutine_threadsafe(self._drain(timeout), self._loop).result(timeout + LATE_SECONDS)
        except TimeoutError:  # the loop does not turn: it waits for a disk
            return False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        return drained

    # What connections ask for.

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        self._connections.add(connection)
        return len(self._connections) <= MOST_CONNECTIONS

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._note(connection, None)

    def admit(self, request: Request) -> Reply | None:
        """Let a request in, or say why not."""
        if self._unsent > MOST_UNSENT:  # perhaps not any more
            for connection in tuple(self._stalled):
                self._note(connection, connection.unsent)
        request.unsent = self._unsent
        return self._app.admit(request)

    def stalls(self, connection: Connection, *, is_full: bool) -> None:
        """Note how much of an answer a connection holds that is not taken."""
        self._note(connection, connection.unsent if is_full else None)

    def _note(self, connection: Connection, unsent: int | None) -> None:
        self._unsent -= self._stalled.pop(connection, 0)
        if unsent is not None:
            self._unsent += unsent
            self._stalled[connection] = unsent

    def grow(self, request: Request, *, is_whole: bool) -> Reply | None:
        """Count more of a request that was let in, or say why not."""
        return self._app.grow(request, is_whole=is_whole)

    def leave(self, request: Request) -> None:
        """A request has ended, or has run: what follows of its answer takes neither a slot nor its body."""
        if request.admitted:
            request.admitted = False
            self._app.leave(request)

    def fault(self, error: RequestError) -> Reply:
        """An error as a reply."""
        return self._app.fault(error)

    def handle(self, request: Request, answer: Callable[[Reply], None]) -> bool:
        """Run it here, or have a thread run it. Whether it is answered in the next turn of the loop."""
        lane = self._app.lane(request)
        crew = self._crews.get(lane)
        if crew is not None:
            crew.submit(partial(self._work, crew, request, answer))
            return False
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._answer)
        if lane is Lane.HERE:
            self._answers.append((answer, self._app.respond(request)))
            self.leave(request)
        else:
            self._asked.append((answer, request))
            if len(self._asked) == MOST_TOGETHER:
                self._run_together()
        return True

    def _run_together(self) -> None:
        asked, self._asked = self._asked, []
        replies = self._app.respond_together([request for _, request in asked])
        for (answer, request), reply in zip(asked, replies, strict=True):
            self._answers.append((answer, reply))
            self.leave(request)

    def _answer(self) -> None:
        """What was asked in one turn is answered together: the log is then written once, before all these answers."""
        if self._asked:
            self._run_together()
        answers, self._answers, self._is_turning = self._answers, [], False
        self._app.settle()
        for answer, reply in answers:
            answer(reply)

    def _work(self, crew: Crew, request: Request, answer: Callable[[Reply], None]) -> None:
        reply = self._app.respond(request)
        self._app.settle()
        self._loop.call_soon_threadsafe(self._worked, crew, answer, reply)

    def _worked(self, crew: Crew, answer: Callable[[Reply], None], reply: Reply) -> None:
        crew.done()
        answer(reply)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
            self._loop.run_forever()
        except Exception:  # the last that this thread can say
            logger.exception("the HTTP server ended")

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(lambda: Connection(self), sock=self._socket, backlog=BACKLOG)

    async def _drain(self, timeout: float) -> bool:
        self.is_draining = True
        began = time.monotonic()
        # What callers have sent on open lines, or send before they hear of the end, is answered too: each answer now
        # says that its line closes. A line closed with a request in it would be a failed request.
        while self._connections and time.monotonic() < began + min(GRACE_SECONDS, timeout):
            await asyncio.sleep(0.01)
        if self._listener is not None:
            self._listener.close()
        end = began + timeout
        while self._connections and time.monotonic() < end:
            for connection in tuple(self._connections):
                connection.drain()
            await asyncio.sleep(0.01)
        return not any(connection.is_busy for connection in self._connections)

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in tuple(self._connections):
            connection.sweep(now)
        self._loop.call_later(SWEEP_SECONDS, self._sweep)


def bound(host: str, port: int) -> socket.socket:
    """A socket on this address. Raises SettingsError where the machine has none such, StateError if it is taken."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(
                f"ENGINE_HOST is {host!r}, which is no address of this machine: give one, or 0.0.0.0 for all."
            ) from error
        raise StateError(
            f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens there, or set ENGINE_PORT."
        ) from error
    return made
