"""The SDK's engine_config, checked and completed."""

from typing import Any

import pytest

from publishing import engine_config
from publishing.errors import UnusableEngineConfig
from publishing.scaling import Autoscale


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
        ({"engine": {"gpu": "two"}}, "gpu in engine is true, false or a number"),
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


@pytest.mark.parametrize(
    ("engine", "gpus"),
    [
        ({"gpu": True}, 1),
        ({"gpu": 2, "resources": {"limits": {"nvidia.com/gpu": 2}}}, 2),
        ({"resources": {"limits": {"nvidia.com/gpu": 4}, "gpu": True}}, 4),
        ({"gpu": False}, 0),
        ({}, 0),
    ],
)
def test_gpus_are_counted_and_told_as_the_sdk_reads_them(engine: dict[str, Any], gpus: int) -> None:
    found = engine_config.checked({"engine": engine})
    assert found["engine"]["resources"]["gpu"] is bool(gpus)
    assert found["engine"]["resources"]["limits"].get("nvidia.com/gpu", 0) == gpus
    assert engine_config.needs_of(found).gpus == gpus


@pytest.mark.parametrize("selector", ["pool=edge", "pool: edge", {"pool": "edge"}])
def test_replicas_and_node_selector_are_read_and_kept(selector: Any) -> None:
    found = engine_config.checked({"engine": {"replicas": 3, "node_selector": selector}})
    needs = engine_config.needs_of(found)
    assert (needs.replicas, needs.node_selector) == (3, (("pool", "edge"),))
    assert found["engine"]["node_selector"] == selector


def test_containers_of_steps_are_checked_and_kept() -> None:
    images = {
        "ccfraud-12": {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "image": "reg/side:1"}, "other": 1}
    }
    found = engine_config.checked({"engineAux": {"images": images}})["engineAux"]["images"]
    assert found == {
        "ccfraud-12": {"resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}, "image": "reg/side:1"}, "other": 1}
    }


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"type": "cpu", "replica_min": 2, "replica_max": 5, "cpu_utilization": 60}, Autoscale(2, 5, 60)),
        ({"type": "cpu", "replica_min": 0, "replica_max": 5}, Autoscale(1, 5, 80)),
        ({"replica_max": 3}, Autoscale(1, 3, 80)),
        ({"type": "none"}, None),
        ({"cpu_utilization": 50}, None),  # what the SDK sends where minimum and maximum were not set
        ({"type": "queue", "replica_max": 3, "scale_up_queue_depth": 5}, None),
        (None, None),
    ],
)
def test_autoscaling_is_read_as_the_sdk_writes_it_and_kept(given: Any, found: Autoscale | None) -> None:
    config = engine_config.checked({"engine": {"autoscale": given}})
    assert engine_config.needs_of(config).autoscale == found
    assert config["engine"]["autoscale"] == given


def test_what_is_kept_but_not_done_is_told() -> None:
    config = engine_config.checked(
        {
            "engine": {"image": "reg/own:1", "replicas": 2, "autoscale": {"type": "queue", "scale_up_queue_depth": 5}},
            "engineAux": {"images": {"b-2": {"image": "reg/side:1"}, "a-1": {}}},
        }
    )
    scaling, containers, image = engine_config.notes_of(config)
    assert "by queue depth" in scaling and "it runs 2 (replicas)" in scaling
    assert "for a-1, b-2 (engineAux.images), which are not made" in containers
    assert "reg/own:1, which is not used" in image
    (least,) = engine_config.notes_of({"engine": {"autoscale": {"replica_min": 0, "replica_max": 2}}})
    assert "the least is 1" in least


@pytest.mark.parametrize("config", [{}, {"engine": {"autoscale": {"replica_min": 1, "replica_max": 2}}}])
def test_what_is_done_needs_no_note(config: dict[str, Any]) -> None:
    assert engine_config.notes_of(engine_config.checked(config)) == []


def test_checking_twice_changes_nothing() -> None:
    given = {
        "engine": {"gpu": 2, "replicas": 2, "node_selector": "a=b", "cpu": "250m"},
        "engineAux": {"images": {"a": {}}},
    }
    once = engine_config.checked(given)
    assert engine_config.checked(once) == once


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"engine": {"gpu": -1}}, "number of GPUs"),
        ({"engine": {"gpu": 65}}, "number of GPUs"),
        ({"engine": {"replicas": "2"}}, "whole number"),
        ({"engine": {"replicas": True}}, "whole number"),
        ({"engine": {"autoscale": 1}}, "autoscale in engine is an object"),
        ({"engine": {"autoscale": {"type": "moon"}}}, "one of none, cpu, queue"),
        ({"engine": {"autoscale": {"replica_max": 0}}}, "replica_max in engine.autoscale is a whole number from 1"),
        ({"engine": {"autoscale": {"replica_min": 3, "replica_max": 2}}}, "at most replica_max"),
        ({"engine": {"autoscale": {"replica_max": 2, "cpu_utilization": 0}}}, "percentage from 1 to 100"),
        ({"engine": {"node_selector": "no label"}}, "node's label"),
        ({"engine": {"node_selector": {"a": 1}}}, "node's label"),
        ({"engine": {"image": "a b"}}, "image in engine is"),
        ({"engineAux": {"images": {"step": 1}}}, "step in engineAux.images is an object"),
        ({"engineAux": {"images": {"step": {"resources": {"limits": {"cpu": -1}}}}}}, "engineAux.images.step"),
        ({"engineAux": {"images": {"step": {"image": 7}}}}, "image in engineAux.images.step"),
    ],
)
def test_what_no_engine_could_be_given_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableEngineConfig, match=words):
        engine_config.checked(given)
