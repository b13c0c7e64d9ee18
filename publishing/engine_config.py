"""What an engine is given at the edge: the SDK's `engine_config`, checked and completed. Pure.

`{"engine": {"resources": {"limits": {"cpu", "memory"}, "requests": {…}, "arch", "accel", "gpu"}}, "engineAux":
{"images": {}}, "enginelb": {}}`; further keys are kept as they came. `arch`, `accel` and `gpu` are also read from
`engine` itself, where deployments have them; so are `replicas`, `autoscale` and `node_selector`. GPUs are counted where
the SDK counts them, in `limits["nvidia.com/gpu"]` or as a number in `gpu`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from publishing import scaling
from publishing.errors import UnusableEngineConfig
from publishing.scaling import Autoscale

MOST_BYTES = 16 * 1024  # as JSON; it is stored with every publish and baked into its chart
DEFAULT_CPU = 1.0
DEFAULT_MEMORY = "512Mi"
GPUS = "nvidia.com/gpu"
MOST_GPUS = 64
MOST_NAMED = 10  # of the steps that a note names
KUBERNETES_ARCH = {"x86": "amd64", "arm": "arm64", "power10": "ppc64le"}

_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMGTPE]i|[kMGTPE])?\Z")
_UNITS = (
    {"k": 10**3}
    | {unit: 1000 ** (n + 1) for n, unit in enumerate("KMGTPE") if n}
    | {f"{unit}i": 1024 ** (n + 1) for n, unit in enumerate("KMGTPE")}
)
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_LABEL = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_VALUE.pattern}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}\Z")
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")


@dataclass(frozen=True)
class Needs:
    """What chart and commands need of a checked configuration. Memory is a Kubernetes quantity."""

    cpu: float
    memory: str
    cpu_request: float
    memory_request: str
    arch: str
    accel: str
    gpu: bool
    gpus: int = 0
    replicas: int = 1
    node_selector: tuple[tuple[str, str], ...] = ()
    autoscale: Autoscale | None = None


def checked(given: Mapping[str, Any] | None, *, arch: str = "x86", accel: str = "none") -> dict[str, Any]:
    """A complete configuration; `arch` and `accel` are the models' own. Raises `UnusableEngineConfig`."""
    if given is not None and not isinstance(given, Mapping):
        raise UnusableEngineConfig(gettext("engine_config is an object with the key engine."))
    if len(json.dumps(given)) > MOST_BYTES:
        raise UnusableEngineConfig(
            gettext("engine_config has more than %(most_bytes)s bytes.") % {"most_bytes": MOST_BYTES}
        )
    config = dict(given or {})
    engine = _object(config, "engine", "engine_config")
    resources = _object(engine, "resources", "engine")
    limits = _object(resources, "limits", "engine.resources")
    requests = _object(resources, "requests", "engine.resources")
    limits |= {
        "cpu": _cpu(limits.get("cpu", engine.get("cpu")), DEFAULT_CPU, "limits"),
        "memory": _memory(limits.get("memory", engine.get("memory")), DEFAULT_MEMORY, "limits"),
    }
    requests |= {
        "cpu": _cpu(requests.get("cpu"), limits["cpu"], "requests"),
        "memory": _memory(requests.get("memory"), limits["memory"], "requests"),
    }
    _refuse_more_than_limit(requests, limits)
    placed = {key: resources.get(key, engine.get(key)) for key in ("arch", "accel", "gpu")}
    gpus = _gpus(limits.get(GPUS), placed["gpu"])
    limits |= {GPUS: gpus} if gpus else {}
    resources |= {"limits": limits, "requests": requests, **_hardware(placed, arch, accel), "gpu": bool(gpus)}
    _check_image(engine, "engine")
    _check_image(resources, "engine.resources")
    scaling.replicas(engine)
    scaling.autoscale(engine)
    _node_selector(engine)
    aux = _object(config, "engineAux", "engine_config")
    images = _object(aux, "images", "engineAux")
    aux["images"] = {name: _step(images, name) for name in images}
    load_balancer = _object(config, "enginelb", "engine_config")
    return config | {"engine": engine | {"resources": resources}, "engineAux": aux, "enginelb": load_balancer}


def needs_of(config: Mapping[str, Any]) -> Needs:
    """What a configuration asks for. Raises `UnusableEngineConfig` when it was never checked and is wrong."""
    engine = checked(config)["engine"]
    resources = engine["resources"]
    limits, requests = resources["limits"], resources["requests"]
    return Needs(
        limits["cpu"],
        limits["memory"],
        requests["cpu"],
        requests["memory"],
        resources["arch"],
        resources["accel"],
        resources["gpu"],
        limits.get(GPUS, 0),
        scaling.replicas(engine),
        _node_selector(engine),
        scaling.autoscale(engine),
    )


def notes_of(config: Mapping[str, Any]) -> list[str]:
    """What of a checked configuration is kept, but not done, in sentences for people."""
    engine, images = config.get("engine") or {}, (config.get("engineAux") or {}).get("images") or {}
    found = scaling.notes(engine)
    if images:
        found.append(
            f"engine_config has containers of their own for {', '.join(sorted(images)[:MOST_NAMED])} "
            "(engineAux.images), which are not made: the engine runs every step itself. Give it what they need in "
            "engine.resources."
        )
    if image := engine.get("image") or (engine.get("resources") or {}).get("image"):
        found.append(f"engine_config names the engine image {image}, which is not used: ENGINE_IMAGE says which is.")
    return found


def memory_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as `512Mi`, `1.5Gi`, `500M` or `1048576`. Raises `ValueError`."""
    found = _QUANTITY.match(quantity)
    if not found:
        raise ValueError(f"{quantity!r} is not a quantity of memory")
    return int(float(found["number"]) * _UNITS.get(found["unit"] or "", 1))


def _object(parent: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnusableEngineConfig(gettext("%(key)s in %(where)s is an object.") % {"key": key, "where": where})
    return dict(value)


def _cpu(value: Any, default: float, where: str) -> float:
    """CPUs as a number; Kubernetes' "500m" is taken too, since people copy it from manifests."""
    if value is None:
        return default
    found = re.match(r"(\d+(?:\.\d+)?)(m?)\Z", value) if isinstance(value, str) else None
    if found:
        value = float(found[1]) / (1000 if found[2] else 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1024:
        raise UnusableEngineConfig(
            gettext("cpu in engine.resources.%(where)s is a number of CPUs above 0, for example 0.5.")
            % {"where": where}
        )
    return float(value)


def _memory(value: Any, default: str, where: str) -> str:
    if value is None:
        return default
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _QUANTITY.match(text) or memory_bytes(text) < 1024**2:
        raise UnusableEngineConfig(
            gettext(
                "memory in engine.resources.%(where)s is a Kubernetes quantity of at least 1Mi, for example "
                "512Mi or 2Gi."
            )
            % {"where": where}
        )
    return text


def _refuse_more_than_limit(requests: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    if requests["cpu"] > limits["cpu"] or memory_bytes(requests["memory"]) > memory_bytes(limits["memory"]):
        raise UnusableEngineConfig(gettext("engine.resources.requests may not be more than its limits."))


def _hardware(given: Mapping[str, Any], arch: str, accel: str) -> dict[str, Any]:
    chosen = {"arch": given["arch"] or arch, "accel": given["accel"] or accel}
    if chosen["arch"] not in KUBERNETES_ARCH:
        raise UnusableEngineConfig(
            gettext("arch in engine is one of %(kubernetes_arch)s.") % {"kubernetes_arch": ", ".join(KUBERNETES_ARCH)}
        )
    if not isinstance(chosen["accel"], str) or not _WORD.match(chosen["accel"]):
        raise UnusableEngineConfig(gettext("accel in engine is a word such as none or cuda."))
    return chosen


def _gpus(limit: Any, gpu: Any) -> int:
    """How many: `gpu` is true, false or a number; a limit counts more exactly."""
    for value in (limit, gpu):
        if value is not None and (not isinstance(value, int) or not 0 <= value <= MOST_GPUS):
            raise UnusableEngineConfig(
                gettext("gpu in engine is true, false or a number of GPUs up to %(most_gpus)s.")
                % {"most_gpus": MOST_GPUS}
            )
    return int(limit or gpu or 0)


def _node_selector(engine: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Labels of nodes: an object, or one `key=value` or `key: value` as the SDK has it."""
    value = engine.get("node_selector")
    if not value:
        return ()
    if isinstance(value, str):
        key, _, label = value.replace(":", "=", 1).partition("=")
        value = {key.strip(): label.strip()}
    if not isinstance(value, Mapping) or not all(_is_label(key, label) for key, label in value.items()):
        raise UnusableEngineConfig(gettext("node_selector in engine is a node's label, for example gpu=true."))
    return tuple(sorted(value.items()))


def _is_label(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, str):
        return False
    return bool(_LABEL.match(key) and (not value or _LABEL_VALUE.match(value)))


def _check_image(place: Mapping[str, Any], where: str) -> None:
    image = place.get("image")
    if image is not None and not (isinstance(image, str) and _IMAGE.match(image)):
        raise UnusableEngineConfig(
            gettext("image in %(where)s is the name of an image, for example registry/repository:tag.")
            % {"where": where}
        )


def _step(images: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What one step's container is given: `{"resources": {"limits", "requests"}, "image"}`; nothing is filled in."""
    where = f"engineAux.images.{name}"
    step = _object(images, name, "engineAux.images")
    resources = _object(step, "resources", where)
    _check_image(step, where)
    _check_image(resources, where)
    for kind in ("limits", "requests"):
        given = _object(resources, kind, where)
        if given.get("cpu") is not None:
            given["cpu"] = _cpu(given["cpu"], DEFAULT_CPU, f"{kind} of {where}")
        if given.get("memory") is not None:
            given["memory"] = _memory(given["memory"], DEFAULT_MEMORY, f"{kind} of {where}")
        resources |= {kind: given} if given else {}
    return step | ({"resources": resources} if resources else {})
