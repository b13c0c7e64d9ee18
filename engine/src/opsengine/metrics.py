"""Prometheus metrics, by prometheus_client.

What a request changes is counted as it happens. What has a state (queue, log, session, update) is read from the same
facts as `/status.json` when somebody asks.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from opsengine.durations import Durations
from opsengine.rows import Facts, Result

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UPDATE_STATES = ("idle", "pulling", "warming", "failed")
NANOSECONDS = 1e-9

Names = Callable[[], tuple[str, ...]]


class Metrics:
    """All metrics of one engine; `models` names the models of the steps that are served now."""

    def __init__(self, models: Names) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "opsengine_requests_total", "Inference requests, by how they ended.", ["pipeline", "code"], **made
        )
        self._seconds = Durations("opsengine_request_seconds", "From a request to its answer.", ("pipeline",))
        self._model_seconds = Durations("opsengine_model_seconds", "One step of a request.", ("pipeline", "model"))
        for durations in (self._seconds, self._model_seconds):
            self._registry.register(durations)
        self._rows = Counter("opsengine_rows_total", "Inferences made.", ["pipeline"], **made)
        # labels() costs more than what it leads to, so what was looked up is kept.
        self._ended: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._steps: tuple[Facts | None, Any, tuple[Any, ...]] = (None, None, ())

    def add(self, facts: Callable[[], dict[str, Any]]) -> None:
        """Show the engine's state too, as `facts` tells it."""
        self._registry.register(StateCollector(facts))

    def request(self, pipeline: str, status: int, seconds: float, count: int = 1) -> None:
        """Count a request, or `count` that were answered together."""
        children = self._ended.get((pipeline, status))
        if children is None:
            children = self._requests.labels(pipeline, str(status)), self._seconds.labels(pipeline)
            self._ended[pipeline, status] = children
        children[0].inc(count)
        if status == 200:
            children[1].observe(seconds, count)

    def result(self, result: Result) -> None:
        """Count what an answered request made, or several that ran as one."""
        facts, made, steps = self._steps
        if facts is not result.facts:
            facts, made, steps = self._steps = self._children(result)
        made.inc(result.count)
        for child, elapsed in zip(steps, result.elapsed[1:], strict=True):
            child.observe(elapsed * NANOSECONDS, len(result.shares) or 1)

    def render(self) -> bytes:
        """The metrics as text."""
        return generate_latest(self._registry)

    def _children(self, result: Result) -> tuple[Facts, Any, tuple[Any, ...]]:
        pipeline, names = result.facts.pipeline, self._models()
        steps = (names[at] if at < len(names) else str(at + 1) for at in range(len(result.elapsed) - 1))
        told = tuple(self._model_seconds.labels(pipeline, name) for name in steps)
        return result.facts, self._rows.labels(pipeline), told


class StateCollector(Collector):
    """Gauges out of the facts of `/status.json`."""

    def __init__(self, facts: Callable[[], dict[str, Any]]) -> None:
        self._facts = facts

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking would need the state before the engine has one."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The state now."""
        told = self._facts()
        for name, (help_text, value) in _gauges(told).items():
            if value is not None:
                yield GaugeMetricFamily(f"opsengine_{name}", help_text, value=float(value))
        for name, (help_text, value) in _counters(told).items():
            yield CounterMetricFamily(f"opsengine_{name}", help_text, value=float(value))
        state = GaugeMetricFamily("opsengine_update_state", "1 for the state the update is in.", labels=["state"])
        for one in UPDATE_STATES:
            state.add_metric([one], float(told["update"]["state"] == one))
        yield state
        yield from _serving(told["serving"])


def _gauges(told: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    logs, contact = told["logs"], told["contact"]
    memory, offset = told["engine"]["memory"], told["clock"]["offset_ms"]
    return {
        "ready": ("1 when a pipeline is loaded.", told["serving"] is not None),
        "queue_requests": ("Requests that wait for a slot.", told["traffic"]["waiting"]),
        "log_backlog_rows": ("Log rows that the ops center has not acknowledged.", logs["backlog"]),
        "log_bytes": ("Disk space that the inference log takes.", logs["bytes"]),
        "log_limit_bytes": ("Disk space that it may take.", logs["limit"]),
        "log_write_failing": ("1 while the log cannot be written.", logs["fault"] is not None),
        "log_held": ("1 while the ops center takes no log rows.", logs["held"] is not None),
        "session_hours_left": ("Until the session lapses, if nothing is heard.", contact["hours_left"]),
        "last_contact_timestamp_seconds": ("When the ops center answered last.", _seconds(contact["last"])),
        "clock_offset_seconds": ("The ops center's clock minus this one.", _seconds(offset)),
        "disk_free_bytes": ("Free on the disk of PERSIST_DIR.", told["disk"]["free"]),
        "memory_bytes": ("Memory in use.", memory["used"]),
        "memory_limit_bytes": ("Memory that may be used.", memory["limit"]),
        "start_timestamp_seconds": ("When the engine started.", _seconds(told["engine"]["started_at"])),
    }


def _counters(told: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    return {
        "errors_total": ("Inference requests that were refused or failed.", told["traffic"]["errors"]),
        "refused_total": ("Requests refused with 429.", told["traffic"]["refused"]),
        "log_shed_rows_total": ("Log rows given up in this epoch, each told as a gap.", told["logs"]["shed"]),
    }


def _serving(serving: dict[str, Any] | None) -> Iterator[Metric]:
    labels = ["pipeline", "version", "digest"]
    info = GaugeMetricFamily("opsengine_serving_info", "What is in memory.", labels=labels)
    if serving:
        info.add_metric([serving["pipeline"], serving["pipeline_version"], serving["digest"]], 1.0)
    yield info


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
