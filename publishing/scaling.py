"""How many engines serve: a number, or as many as the load asks for. Pure.

The SDK's `engine.autoscale` is `{"type": "cpu", "replica_min", "replica_max", "cpu_utilization"}` (its
`replica_autoscale_min_max` and `autoscale_cpu_utilization`), `{"type": "queue", "scale_up_queue_depth", …}` or
`{"type": "none"}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from publishing.errors import UnusableEngineConfig

MOST_REPLICAS = 1000
DEFAULT_PERCENT = 80  # Kubernetes' own, where no utilization is given
KINDS = ("none", "cpu", "queue")


@dataclass(frozen=True)
class Autoscale:
    """From `least` to `most` engines, so many that they use about `percent` of the CPUs that they request."""

    least: int
    most: int
    percent: int


def replicas(engine: Mapping[str, Any]) -> int:
    """The fixed number. Raises `UnusableEngineConfig`."""
    value = engine.get("replicas")
    return 1 if value is None else _whole(value, 0, "replicas in engine")


def autoscale(engine: Mapping[str, Any]) -> Autoscale | None:
    """What a Kubernetes autoscaler can do of what is asked for: None for a fixed number and for queue depths.

    Raises `UnusableEngineConfig`.
    """
    given = engine.get("autoscale")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise UnusableEngineConfig(_("autoscale in engine is an object."))
    kind = given.get("type", "cpu" if "replica_max" in given else "none")
    if kind not in KINDS:
        raise UnusableEngineConfig(_("type in engine.autoscale is one of %(kinds)s.") % {"kinds": ", ".join(KINDS)})
    percent = _percent(given.get("cpu_utilization"))
    least = _whole(given.get("replica_min", 0), 0, "replica_min in engine.autoscale")
    most = _whole(given.get("replica_max", max(1, least)), 1, "replica_max in engine.autoscale")
    if least > most:
        raise UnusableEngineConfig(_("replica_min in engine.autoscale is at most replica_max."))
    return Autoscale(max(1, least), most, percent) if kind == "cpu" else None


def notes(engine: Mapping[str, Any]) -> list[str]:
    """What of a checked configuration is not done as it was asked for, in sentences."""
    given = engine.get("autoscale") or {}
    if given.get("type") == "queue":
        return [
            "engine.autoscale asks for scaling by queue depth, which the chart does not do: it runs "
            f"{replicas(engine)} (replicas). Scale by CPU (replica_min, replica_max, cpu_utilization) instead."
        ]
    if autoscale(engine) and given.get("replica_min", 0) == 0:
        return ["engine.autoscale has replica_min 0, but scaling by CPU needs one engine to measure: the least is 1."]
    return []


def _whole(value: Any, least: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST_REPLICAS:
        raise UnusableEngineConfig(
            _("%(where)s is a whole number from %(least)s to %(most_replicas)s.")
            % {"where": where, "least": least, "most_replicas": MOST_REPLICAS}
        )
    return value


def _percent(value: Any) -> int:
    if value is None:
        return DEFAULT_PERCENT
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 100:
        raise UnusableEngineConfig(_("cpu_utilization in engine.autoscale is a percentage from 1 to 100."))
    return round(value)
