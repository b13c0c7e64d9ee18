"""The data plane: decode, run the steps, encode, log. One request runs wholly on one pipeline."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opsengine import decode, encode, gathering, rows
from opsengine.errors import RequestError
from opsengine.pipeline import LoadedPipeline
from opsengine.rows import Result
from opsengine.selection import Selection


@dataclass(slots=True)
class Counters:
    """Since the engine started."""

    requests: int = 0
    rows: int = 0
    errors: int = 0


class DataPlane:
    """Serves whatever pipeline is current; `record` takes each result for the log and must not block."""

    def __init__(self, record: Callable[[Result], None], max_body: int) -> None:
        self._record = record
        self._max_body = max_body
        self._current: LoadedPipeline | None = None
        self._counting = threading.Lock()
        self.counters = Counters()

    @property
    def current(self) -> LoadedPipeline | None:
        """What is served now."""
        return self._current

    def swap(self, pipeline: LoadedPipeline) -> None:
        """Serve another pipeline: one assignment, requests under way finish on what they began with."""
        self._current = pipeline

    def infer(
        self,
        body: bytes,
        content_type: str,
        *,
        as_arrow: bool,
        selection: Selection | None = None,
        pipeline: str | None = None,
        meets: bool = False,
    ) -> bytes:
        """Answer one inference request. `pipeline` is the name in the URL, if there is one. Raises RequestError.

        With `meets` it may wait to be run with those of other threads.
        """
        try:
            result = self._run(self._pipeline(pipeline), body, content_type, meets)
            answer = encode.answer_arrow(result, selection) if as_arrow else encode.answer_json(result, selection)
        except Exception:
            self._count(errors=1)
            raise
        self._record(result)
        self._count(rows=result.count)
        return answer

    def infer_together(
        self,
        bodies: Sequence[bytes],
        content_type: str,
        *,
        as_arrow: bool,
        selection: Selection | None = None,
        pipeline: str | None = None,
    ) -> list[bytes] | None:
        """Answers to requests that ask alike, run together; None where they have to run one by one.

        Raises RequestError where one of them is at fault: none is answered then.
        """
        began = time.perf_counter_ns()
        current = self._pipeline(pipeline)
        kinds = {decode.kind_of(content_type, body) for body in bodies}
        if len(kinds) != 1:
            return None
        batch, shares = gathering.joined(bodies, kinds.pop(), self._max_body)
        result = current.answer_together(batch, began, shares)
        if result is None:
            return None
        if as_arrow:
            answers = [encode.answer_arrow(one, selection) for one in rows.apart(result)]
        else:
            answers = encode.answers_json(result, selection)
        self._record(result)
        self._count(requests=len(bodies), rows=result.count)
        return answers

    def _pipeline(self, name: str | None) -> LoadedPipeline:
        current = self._current
        if current is None:
            raise RequestError("No pipeline is loaded yet: try again in a moment.", 503, (("Retry-After", "1"),))
        if name is not None and name != current.facts.pipeline:
            raise RequestError(f"Pipeline {name[:100]!r} is not served here: {current.facts.pipeline!r} is.", 404)
        return current

    def _run(self, pipeline: LoadedPipeline, body: bytes, content_type: str, meets: bool) -> Result:
        began = time.perf_counter_ns()
        batch = decode.read(body, decode.kind_of(content_type, body), self._max_body)
        return pipeline.answer(batch, began, meets=meets)

    def _count(self, requests: int = 1, rows: int = 0, errors: int = 0) -> None:
        with self._counting:
            self.counters.requests += requests
            self.counters.rows += rows
            self.counters.errors += errors
