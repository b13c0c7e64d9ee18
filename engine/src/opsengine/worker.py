"""A process beside the engine's own that holds the pipeline too and answers what it is sent (opsengine.workers).

    python -P -m opsengine.worker SOCKET

It reads from the socket what to load, says that it is ready, and then answers one request after another until the
engine closes the socket. It serves no address and knows no secret, and rows for the log go back with the answer. A
message is the lengths of a head and a body, the head (JSON), and the body.
"""

import logging
import socket
import struct
import sys
import time
from typing import Any

import orjson

from opsengine import chunks, logformat, memory, pipeline, selection
from opsengine.errors import EngineError, RequestError
from opsengine.pipeline import Source
from opsengine.plane import DataPlane
from opsengine.pyworker import receive
from opsengine.recorder import Recorder
from opsengine.rows import Result

logger = logging.getLogger(__name__)

LENGTHS = struct.Struct("<IQ")


def packed(head: dict[str, Any], *body: bytes) -> list[bytes]:
    """A message as pieces to send."""
    told = orjson.dumps(head)
    return [LENGTHS.pack(len(told), sum(map(len, body))) + told, *body]


def send(line: socket.socket, message: list[bytes]) -> None:
    """Send a message. Raises OSError when the other side is gone."""
    for piece in message:
        line.sendall(piece)


def message(line: socket.socket) -> tuple[dict[str, Any], bytes]:
    """The head and body of the next message. Raises EOFError or OSError when the other side is gone."""
    head, body = LENGTHS.unpack(receive(line, LENGTHS.size))
    return orjson.loads(receive(line, head)), bytes(receive(line, body))


class Answerer:
    """Answers requests with one pipeline. Raises EngineError where that cannot be loaded. Limits are in bytes."""

    def __init__(self, source: Source, max_body: int, log_field_limit: int) -> None:
        self._results: list[Result] = []
        self._plane = DataPlane(Recorder(self._results.append, lambda result: None, log_field_limit), max_body)
        self._plane.swap(pipeline.load_again(source))

    def answer(self, head: dict[str, Any], body: bytes) -> list[bytes]:
        """The message that answers a request's.

        Its head tells the `status`, the `seconds` that it took, and what is wrong (`error`, `headers`) or how many
        bytes of its body are the chunk for the log (`record`); the answer itself follows them. `again`: the engine has
        to answer itself, because the rows can only be logged out of its own memory.
        """
        began, worked = time.perf_counter(), time.thread_time()
        try:
            answer = self._plane.infer(
                body,
                head["content_type"],
                as_arrow=head["as_arrow"],
                selection=selection.parse(head["query"]) if head["query"] else None,
                pipeline=head["pipeline"],
            )
            record = self._record()
        except RequestError as error:
            told = {"status": error.status, "error": str(error), "headers": error.headers}
            return packed(told | {"seconds": time.perf_counter() - began, "worked": time.thread_time() - worked})
        except Exception:
            logger.exception("a request failed in a worker")
            return packed({"again": True})
        finally:
            self._results.clear()
        if record is None:
            return packed({"again": True})
        seconds, worked = time.perf_counter() - began, time.thread_time() - worked
        return packed({"status": 200, "seconds": seconds, "worked": worked, "record": len(record)}, record, answer)

    def _record(self) -> bytes | None:
        (chunk,) = chunks.pack(self._results)
        try:
            return b"".join(chunks.packed_bytes(chunk))
        except TypeError:  # a column that no model reads holds what JSON has no word for
            return None


def main(descriptor: str) -> None:
    """Load, then answer until the engine is gone. Raises EOFError or OSError then."""
    line = socket.socket(fileno=int(descriptor))
    told, _ = message(line)
    logformat.start(told["log_format"], debug=told["debug"])
    memory.be_frugal()
    try:
        answerer = Answerer(Source(**told["source"]), told["max_body"], told["log_field_limit"])
    except EngineError as error:
        send(line, packed({"error": str(error)}))
        return
    memory.collect_seldom()
    memory.Keeper().start()
    send(line, packed({}))
    while True:
        send(line, answerer.answer(*message(line)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (EOFError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)
