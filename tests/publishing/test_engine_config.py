"""The SDK's engine_config, checked and completed."""

from typing import Any

import pytest

from publishing import engine_config
from publishing.errors import UnusableEngineConfig


def test_nothing_becomes_a_default_that_fits_the_sdk() -> None:
    assert engine_config.checked(None, arch="arm", accel="cuda") == {
        "engine": {
            "resources": {
                "limits": {"cpu": 1.0, "memory": "512Mi"},
                "requests": {"cpu": 1.0, "memory": "512Mi"},
                "arch": "arm",
                "accel": "cuda",
                "gpu": False,
            }
        },
        "engineAux": {"images": {}},
        "enginelb": {},
    }


def test_a_row_without_a_configuration_needs_the_default() -> None:
    assert engine_config.needs_of({}) == engine_config.needs_of(engine_config.checked(None))


def test_the_seeds_configuration_is_kept() -> None:
    resources = {"limits": {"cpu": 4.0, "memory": "3Gi"}, "requests": {"cpu": 4.0, "memory": "3Gi"}}
    resources |= {"accel": "none", "arch": "x86", "gpu": False}
    given = {
        "engine": {"resources": resources},
        "engineAux": {"autoscale": {"type": "none"}, "images": None},
        "enginelb": {"resources": {"limits": {"cpu": 1.0, "memory": "512Mi"}}},
    }
    found = engine_config.checked(given)
    assert found["engine"] == given["engine"]
    assert found["engineAux"] == {"autoscale": {"type": "none"}, "images": {}}, "images is never null"
    assert found["enginelb"] == given["enginelb"]
    assert given["engineAux"]["images"] is None, "the caller's object is not changed"


@pytest.mark.parametrize(
    ("given", "cpu", "memory"),
    [
        ({"engine": {"cpu": 2}}, 2.0, "512Mi"),
        ({"engine": {"resources": {"limits": {"cpu": "500m", "memory": "1.5Gi"}}}}, 0.5, "1.5Gi"),
        ({"engine": {"resources": {"limits": {"cpu": "0.25", "memory": 2097152}}}}, 0.25, "2097152"),
    ],
)
def test_what_people_write_is_understood(given: dict[str, Any], cpu: float, memory: str) -> None:
    needs = engine_config.needs_of(engine_config.checked(given))
    assert (needs.cpu, needs.memory, needs.cpu_request, needs.memory_request) == (cpu, memory, cpu, memory)


def test_architecture_beside_the_resources_is_read_too() -> None:
    needs = engine_config.needs_of(engine_config.checked({"engine": {"arch": "power10", "accel": "aio", "gpu": True}}))
    assert (needs.arch, needs.accel, needs.gpu) == ("power10", "aio", True)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "is an object with the key engine"),
        ({"engine": 1}, "engine in engine_config is an object"),
        ({"engine": {"resources": []}}, "resources in engine is an object"),
        ({"engineAux": {"images": []}}, "images in engineAux is an object"),
        ({"engine": {"resources": {"limits": {"cpu": "many"}}}}, "cpu in engine.resources.limits is a number"),
        ({"engine": {"resources": {"limits": {"cpu": 0}}}}, "above 0"),
        ({"engine": {"resources": {"limits": {"cpu": True}}}}, "above 0"),
        ({"engine": {"resources": {"limits": {"memory": "lots"}}}}, "for example 512Mi"),
        ({"engine": {"resources": {"limits": {"memory": "1Ki"}}}}, "at least 1Mi"),
        ({"engine": {"resources": {"requests": {"cpu": 2}}}}, "may not be more than its limits"),
        ({"engine": {"resources": {"requests": {"memory": "1Gi"}}}}, "may not be more than its limits"),
        ({"engine": {"arch": "sparc"}}, "one of x86, arm, power10"),
        ({"engine": {"accel": "$(rm)"}}, "a word such as none or cuda"),
        ({"engine": {"gpu": 2}}, "gpu in engine is true or false"),
        ({"engine": {"x": "y" * 20_000}}, "more than 16384 bytes"),
    ],
)
def test_nonsense_is_refused_by_name(given: Any, reason: str) -> None:
    with pytest.raises(UnusableEngineConfig, match=reason):
        engine_config.checked(given)


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("512Mi", 512 * 1024**2), ("1.5Gi", 1536 * 1024**2), ("500M", 5 * 10**8), ("1k", 1000), ("7", 7)],
)
def test_quantities_have_their_size(quantity: str, size: int) -> None:
    assert engine_config.memory_bytes(quantity) == size
