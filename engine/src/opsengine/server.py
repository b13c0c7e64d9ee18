"""granian in this very process: its Rust HTTP threads hand requests to a few Python threads.

granian's own command line runs the application in a child process, which would part the HTTP surface from the threads
that log, ship and update. Its worker object is therefore used directly, as granian's threaded server does (granian 2.8,
`granian/server/mt.py`).
"""

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from granian import _futures, _granian
from granian.http import HTTP1Settings

from opsengine.errors import StateError

# granian's type stubs lag behind its compiled module.
_native: Any = _granian
_scheduler: Any = _futures._new_cbscheduler

BACKLOG = 1024
# A request that waits for a thread which writes the log gets its turn after this long. With Python's 5 ms the slowest
# hundredth of small requests took two to three times as long (bench/engine, log on).
SWITCH_SECONDS = 0.0005
# Results that wait for the log are many and hold no cycles: with Python's (700, 10, 10) a third of a small request went
# into looking for cycles among them.
COLLECT = (50_000, 20, 50)
BACKPRESSURE = 256  # requests in Python's hands or waiting for them; more wait in the socket


Respond = Callable[[dict[str, Any]], tuple[int, list[tuple[str, str]], bytes]]


class Server:
    """Serves on one address, in `threads` Python threads; most of them wait (opsengine.gate).

    `respond` takes granian's WSGI scope: the keys of PEP 3333 that tell of the request, and `wsgi.input`.
    """

    def __init__(self, respond: Respond, host: str, port: int, threads: int) -> None:
        check_port(host, port)
        self._signal = _native.WorkerSignal()
        self._stopped = threading.Event()
        self._signal.add_cb(self._stopped.set)
        self._loop = asyncio.new_event_loop()  # granian's scheduler wants one; WSGI never runs it
        self._worker = _native.WSGIWorker(
            1,
            (_native.ListenerSpec(host, port, BACKLOG), None),
            None,
            1,
            threads,
            threads,
            30,
            max(BACKPRESSURE, 2 * threads),
            "1",
            HTTP1Settings(),
            None,
            None,
            *(False, None, None, None, "tls1.3", None, [], False),
            (None, None),
        )
        self._scheduler = _scheduler(self._loop, _runner(respond), impl_asyncio=True)

    def start(self) -> None:
        """Listen and serve."""
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()  # what is here now stays
        gc.set_threshold(*COLLECT)
        self._worker.serve_mtr(self._scheduler, self._loop, self._signal)

    def stop(self, timeout: float) -> bool:
        """Take no new connections and wait for requests under way; False when `timeout` seconds were not enough."""
        self._signal.set()
        drained = self._stopped.wait(timeout)
        self._loop.close()
        return drained


def _runner(respond: Respond) -> Callable[[Any, dict[str, Any]], int]:
    """What granian calls for a request. Its own wrapper for WSGI copies the process's environment into each."""

    def run(protocol: Any, scope: dict[str, Any]) -> int:
        status, headers, body = respond(scope)
        protocol.response_bytes(status, headers, body)
        return status

    return run


def check_port(host: str, port: int) -> None:
    """Raise StateError if the address cannot be bound.

    The server listens with SO_REUSEPORT, with which two engines would share one port without a word.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StateError(
            f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens there, or set ENGINE_PORT."
        ) from error
