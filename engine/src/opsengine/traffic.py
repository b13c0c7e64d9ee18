"""Inference requests between HTTP and the data plane: let in, timed, counted, watched for the trial of a publish."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from opsengine.errors import RequestError
from opsengine.gate import Gate
from opsengine.metrics import Metrics
from opsengine.pipeline import LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.selection import Selection

NOT_LOADED = 503


@dataclass(slots=True)
class Ask:
    """One inference request. `read` gives its body, of at most `size` bytes."""

    read: Callable[[], bytes]
    size: int
    content_type: str
    as_arrow: bool
    selection: Selection | None
    pipeline: str | None


class Traffic:
    """`observe(digest, fine)` hears how each request ended, but for faults of the caller."""

    def __init__(self, plane: DataPlane, gate: Gate, metrics: Metrics, observe: Callable[[str, bool], None]) -> None:
        self._plane = plane
        self._gate = gate
        self._metrics = metrics
        self._observe = observe

    def infer(self, ask: Ask) -> bytes:
        """Answer a request. Raises RequestError, with 429 where too much waits already."""
        began = time.perf_counter()
        current = self._plane.current
        status = 500
        try:
            answer = self._run(ask, current)
            status = 200
        except RequestError as error:
            status = error.status
            raise
        finally:
            name = current.facts.pipeline if current else ""
            self._metrics.request(name, status, time.perf_counter() - began)
            if current and (status == 200 or (status >= 500 and status != NOT_LOADED)):
                self._observe(current.digest, status == 200)
        return answer

    def _run(self, ask: Ask, current: LoadedPipeline | None) -> bytes:
        with self._gate.admit(ask.size):
            body = ask.read()  # outside of the slots: a slow sender must not hold one
            if current is not None and current.gathers:
                return self._answer(ask, body)
            with self._gate.slot():
                return self._answer(ask, body)

    def _answer(self, ask: Ask, body: bytes) -> bytes:
        return self._plane.infer(
            body, ask.content_type, as_arrow=ask.as_arrow, selection=ask.selection, pipeline=ask.pipeline
        )
