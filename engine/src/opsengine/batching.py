"""Micro-batching: rows of callers that come at the same time run together, and each gets its own rows back.

There is no thread of its own: the first caller to come gathers the others and runs for all of them, so with a single
caller at a time the only cost is the wait.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from opsengine.definition import Batching
from opsengine.errors import RequestError
from opsengine.fields import Array, Field

Columns = dict[str, Array]
Run = Callable[[Columns], dict[str, Field]]


@dataclass(slots=True, eq=False)
class _Call:
    columns: Columns
    count: int
    done: threading.Event = field(default_factory=threading.Event)
    made: dict[str, Field] | None = None
    fault: Exception | None = None
    began: float = 0.0  # when it was run, by the monotonic clock


_meeting = threading.local()


def waited() -> float:
    """Seconds that this thread waited for other callers, since it last asked."""
    seconds: float = getattr(_meeting, "seconds", 0.0)
    _meeting.seconds = 0.0
    return seconds


class Batcher:
    """Stands in front of a model's `run`."""

    def __init__(self, run: Run, limits: Batching) -> None:
        self._run = run
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._rows = 0
        self._has_leader = False

    def run(self, columns: Columns) -> dict[str, Field]:
        """As the model's `run`: the outputs of these rows, and of no others. Raises RequestError."""
        came = time.monotonic()
        call = _Call(columns, len(next(iter(columns.values()))))
        with self._changed:
            self._waiting.append(call)
            self._rows += call.count
            leads = not self._has_leader
            self._has_leader = True
            self._changed.notify_all()
        if leads:
            self._lead()
        call.done.wait()
        _meeting.seconds = getattr(_meeting, "seconds", 0.0) + max(0.0, call.began - came)
        if call.fault is not None:
            raise call.fault
        assert call.made is not None  # done without a fault is done with outputs
        return call.made

    def _lead(self) -> None:
        end = time.monotonic() + self._limits.max_wait_us / 1e6
        with self._changed:
            while self._rows < self._limits.max_rows:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            calls, self._waiting, self._rows, self._has_leader = self._waiting, [], 0, False
        try:
            for group in _groups(calls, self._limits.max_rows):
                self._answer(group)
        finally:  # what nobody expected in one group must not leave the callers of another waiting for ever
            _end(calls)

    def _answer(self, calls: list[_Call]) -> None:
        for call in calls:
            call.began = time.monotonic()
        try:
            if len(calls) > 1 and self._answer_together(calls):
                return
            for call in calls:
                self._answer_alone(call)
        finally:
            _end(calls)

    def _answer_together(self, calls: list[_Call]) -> bool:
        """False where the rows do not run together: each then runs alone, so nobody gets another caller's fault."""
        names = calls[0].columns
        try:
            made = self._run({name: np.concatenate([call.columns[name] for call in calls]) for name in names})
        except RequestError:
            return False
        at = 0
        for call in calls:
            call.made = {name: value[at : at + call.count] for name, value in made.items()}
            at += call.count
        return True

    def _answer_alone(self, call: _Call) -> None:
        try:
            call.made = self._run(call.columns)
        except RequestError as error:
            call.fault = error


def portions(counts: Sequence[int], most: int) -> list[int]:
    """Neighbours put together, as long as they have no more than `most` rows; who has more stays alone."""
    made: list[int] = []
    for count in counts:
        if made and made[-1] + count <= most:
            made[-1] += count
        else:
            made.append(count)
    return made


def _end(calls: list[_Call]) -> None:
    for call in calls:
        if call.made is None and call.fault is None:
            call.fault = RequestError("The model failed on this request: see the engine's log.", 500)
        call.done.set()


def _groups(calls: list[_Call], most: int) -> list[list[_Call]]:
    """Calls that may run together: rows of the same shapes, no more than `most` of them unless one call has more."""
    made: list[list[_Call]] = []
    open_groups: dict[tuple[object, ...], list[_Call]] = {}
    for call in calls:
        kind = tuple((name, array.shape[1:]) for name, array in call.columns.items())
        group = open_groups.get(kind)
        if group is None or sum(other.count for other in group) + call.count > most:
            group = open_groups[kind] = []
            made.append(group)
        group.append(call)
    return made
