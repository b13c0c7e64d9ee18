"""Inference requests between HTTP and the data plane: let in, timed, counted, watched for the trial of a publish."""

import time
from collections.abc import Callable, Sequence

from opsengine import batching
from opsengine.errors import RequestError
from opsengine.gate import Gate
from opsengine.messages import Request
from opsengine.metrics import Metrics
from opsengine.pipeline import LoadedPipeline
from opsengine.plane import DataPlane
from opsengine.selection import Selection
from opsengine.server import Lane

NOT_LOADED = 503
# What took less, over the last requests of its size, runs in the loop: handing it over costs about a tenth of that.
QUICK_SECONDS = 0.001
# Longer than others keep the core: the request itself waits for something, which the loop must not.
STUCK_SECONDS = 0.02
# Of a larger body the rows take the time, not the way through the steps, which requests that run as one have in common.
SMALL_BODY = 2**13
WEIGHT = 0.1  # of the last request in the time that its size is expected to take
PRESSED = 0.7  # share of the time that is spent on inferences, from which on other work is to wait


class Traffic:
    """`observe(digest, fine)` hears how each request ended, but for faults of the caller."""

    def __init__(self, plane: DataPlane, gate: Gate, metrics: Metrics, observe: Callable[[str, bool], None]) -> None:
        self._plane = plane
        self._gate = gate
        self._metrics = metrics
        self._observe = observe
        self._timed: LoadedPipeline | None = None
        self._seconds: dict[int, float] = {}  # by the power of two that the body's size is below
        self._spent, self._looked = 0.0, (time.monotonic(), 0.0)

    def admit(self, size: int, unsent: int = 0) -> None:
        """Let a request with a body of `size` bytes in. Raises RequestError (429) where too much waits already.

        `unsent`: bytes of answers that callers have not taken.
        """
        try:
            self._gate.enter(size, unsent)
        except RequestError as error:
            self._count(self._plane.current, error.status, 0.0)
            raise

    def grow(self, request: Request, *, is_whole: bool) -> None:
        """More has come of a request that was let in. Raises RequestError (429) where too much waits already."""
        try:
            if is_whole:
                self._gate.complete(request.had, request.counted, has_place=request.has_place)
            else:
                self._gate.come(request.had, request.counted, has_place=request.has_place)
        except RequestError as error:
            self._count(self._plane.current, error.status, 0.0)
            raise
        request.counted, request.has_place = request.had, is_whole

    def leave(self, size: int, *, has_place: bool = True) -> None:
        """A request that was let in has ended."""
        self._gate.leave(size, has_place=has_place)

    def lane(self, request: Request) -> Lane:
        """Where a request is to run, by what the pipeline took for those with bodies of its size."""
        current = self._plane.current
        if current is not self._timed:
            self._timed, self._seconds = current, {}
        if current is None:
            return Lane.MODEL
        known = self._seconds.get(len(request.body).bit_length(), 1.0)
        is_quick = current.is_steady and known < QUICK_SECONDS
        request.meets = current.gathers and not is_quick
        if is_quick:
            return Lane.TOGETHER if len(request.body) <= SMALL_BODY else Lane.HERE
        return Lane.MEET if request.meets else Lane.MODEL

    @property
    def is_pressed(self) -> bool:
        """Whether inferences take most of the time since this was last asked."""
        then, spent = self._looked
        self._looked = time.monotonic(), self._spent
        return self._gate.waiting > 0 or self._spent - spent > PRESSED * (self._looked[0] - then)

    def infer(self, request: Request, selection: Selection | None, pipeline: str | None, *, as_arrow: bool) -> bytes:
        """Answer a request. `pipeline` is the name in the URL, if there is one. Raises RequestError."""
        began, began_work = time.perf_counter(), time.thread_time()
        current = self._plane.current
        status = 500
        try:
            answer = self._plane.infer(
                request.body,
                request.content_type,
                as_arrow=as_arrow,
                selection=selection,
                pipeline=pipeline,
                meets=request.meets,
            )
            status = 200
        except RequestError as error:
            status = error.status
            raise
        finally:
            seconds = time.perf_counter() - began - batching.waited()
            self._spent += seconds
            # What met others may have run in the thread of one of them.
            worked = seconds if request.meets else _worked(current, began_work, seconds)
            if status == 200 or worked >= QUICK_SECONDS:  # what is refused quickly says nothing of what will run
                self._expect(len(request.body).bit_length(), worked)
            self._count(current, status, seconds)
        return answer

    def infer_together(
        self, requests: Sequence[Request], selection: Selection | None, pipeline: str | None, *, as_arrow: bool
    ) -> list[bytes] | None:
        """Answer requests that ask alike in one run; None where that cannot be. Raises RequestError, all unanswered."""
        began, began_work = time.perf_counter(), time.thread_time()
        current = self._plane.current
        bodies = [request.body for request in requests]
        answers = self._plane.infer_together(
            bodies, requests[0].content_type, as_arrow=as_arrow, selection=selection, pipeline=pipeline
        )
        if answers is not None:
            seconds, count = time.perf_counter() - began, len(bodies)
            worked = _worked(current, began_work, seconds)
            self._spent += seconds
            for size in {len(body).bit_length() for body in bodies}:
                self._expect(size, worked / count)
            self._count(current, 200, seconds, count)
        return answers

    def _expect(self, size: int, seconds: float) -> None:
        """Only an estimate: threads that write it at the same time do no harm."""
        known = self._seconds.get(size)
        self._seconds[size] = seconds if known is None else known + WEIGHT * (seconds - known)

    def _count(self, current: LoadedPipeline | None, status: int, seconds: float, count: int = 1) -> None:
        self._metrics.request(current.facts.pipeline if current else "", status, seconds, count)
        if current and (status == 200 or (status >= 500 and status != NOT_LOADED)):
            self._observe(current.digest, status == 200)


def _worked(current: LoadedPipeline | None, since: float, seconds: float) -> float:
    """Seconds that a request took of its core: that other programs had it meanwhile says nothing of the next one."""
    is_of_core = current is not None and current.is_on_cpu and seconds < STUCK_SECONDS
    return time.thread_time() - since if is_of_core else seconds
