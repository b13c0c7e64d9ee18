"""docker-compose.yml and .env.example fit together, and promise what operations rely on."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OURS = ("bootstrap", "web", "worker", "beat")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def variables() -> dict[str, str]:
    """Every variable of the file with the operator behind it: `?` must be set, `-` has a default."""
    text = (ROOT / "docker-compose.yml").read_text()
    return dict(re.findall(r"(?<!\$)\$\{(\w+):([-?])", text))


def test_every_needed_value_is_in_the_example_and_empty(example: dict[str, str]) -> None:
    needed = {name for name, operator in variables().items() if operator == "?"}
    assert needed <= example.keys()
    assert {name for name in needed if example[name]} == set(), "an example value would become a default"


def test_example_has_nothing_that_compose_does_not_read(example: dict[str, str]) -> None:
    assert example.keys() - variables().keys() == {"COMPOSE_PROFILES"}


def test_no_password_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\$\{\w*(?:PASSWORD|SECRET|KEY)\w*:-[^}]+\}", text) == []


def test_our_containers_are_locked_down(compose: Any) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["command"] == [name]
    assert re.search(r"^USER 10001$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_roles_wait_for_bootstrap_and_bootstrap_for_its_stores(compose: Any) -> None:
    services = compose["services"]
    for name in ("web", "worker", "beat"):
        assert services[name]["depends_on"] == {"bootstrap": {"condition": "service_completed_successfully"}}
    assert {name: need["condition"] for name, need in services["bootstrap"]["depends_on"].items()} == {
        "postgres": "service_healthy",
        "redis": "service_healthy",
    }
    assert all("healthcheck" in services[name] for name in ("postgres", "redis", "registry", "worker", "beat"))


def test_named_volumes_are_declared(compose: Any) -> None:
    mounted = {
        volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"])


def test_compose_accepts_the_filled_example(example: dict[str, str], tmp_path: Path) -> None:
    compose = shutil.which("docker-compose")
    if not compose:
        pytest.skip("docker-compose is not installed")
    filled = tmp_path / "filled.env"
    filled.write_text("".join(f"{name}={value or 'filled'}\n" for name, value in example.items()))
    done = subprocess.run(
        [compose, "--env-file", filled, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
