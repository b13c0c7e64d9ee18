"""Commands ready to copy: what a shell, compose and Helm make of them, not what they look like."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from publishing import commands, engine_config
from publishing.publish_view import PublishView
from tests.publishing.conftest import tool

VIEW = PublishView(
    pipeline="houseprice",
    version="3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    registry="reg.example:5000",
    plain_http=False,
    pipeline_url="reg.example:5000/ml/pipelines/houseprice:3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    engine_url="reg.example:5000/ml/engines/opsengine:0.1.0",
    chart_url="reg.example:5000/ml/charts/houseprice",
    chart_version="0.0.1-3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    chart_digest=f"sha256:{'a' * 64}",
    needs=engine_config.needs_of(engine_config.checked({"engine": {"cpu": 1.25, "memory": "1536Mi"}})),
)
BUNDLE = "ZXhwb3J0IEE9Qgo="
NASTY = "x'; touch pwned; echo \"$(id) `id`\\"


def text(title: str, view: PublishView = VIEW, bundle: str | None = None) -> str:
    return next(command.text for command in commands.for_publish(view, bundle) if command.title == title)


def words(command: str, tmp_path: Path, **environment: str) -> list[Any]:
    """The words that a real shell passes on, with each program replaced by one that prints them."""
    printer = "import json,os,sys;print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("docker", "podman", "helm", "opsengine"):
        (tools / name).write_text(f"#!/usr/bin/env python3\n{printer}\n")
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["sh", "-euc", command],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": f"{tools}:/usr/bin:/bin"} | environment,
    )
    arguments, seen = json.loads(done.stdout)
    assert not (tmp_path / "pwned").exists()
    return [*arguments, seen] if command.endswith("opsengine serve") else arguments


LOGIN = {"OCI_USERNAME": "robot$ml+edge", "OCI_PASSWORD": "p w,d'\"$x"}


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_a_container_gets_the_seeds_environment_and_volume(program: str, tmp_path: Path) -> None:
    found = words(text(f"{program} run", bundle=BUNDLE), tmp_path, **LOGIN)
    assert found[0] == "run"
    assert found[found.index("-p") + 1] == "8080:8080"
    assert found[found.index("-v") + 1] == "opscenter-houseprice:/persist"
    assert {found[at + 1] for at, word in enumerate(found) if word == "-e"} == {
        "OCI_REGISTRY=reg.example:5000",
        "OCI_USERNAME=robot$ml+edge",
        "OCI_PASSWORD=p w,d'\"$x",
        "CONFIG_CPUS=1.25",
        f"PIPELINE_URL={VIEW.pipeline_url}",
        f"EDGE_BUNDLE={BUNDLE}",
    }
    assert "--cpus=1.25" in found and "--memory=1536m" in found
    assert found[-1] == VIEW.engine_url


def test_an_edge_keeps_its_volume_whatever_it_serves(tmp_path: Path) -> None:
    """Also when it needs no bundle any more, since it knows who it is."""
    first = replace(VIEW, edge="site-7")
    second = replace(VIEW, edge="site-7", pipeline="another", image_url="reg.example/ml/images/another:1")
    for view, bundle in ((first, BUNDLE), (second, None)):
        for title in ("docker run", "podman run", *(["docker run, one image"] if view.image_url else [])):
            found = words(text(title, view, bundle), tmp_path, **LOGIN)
            assert found[found.index("-v") + 1] == "opscenter-site-7:/persist", title
        told = yaml.safe_load(text("compose.yaml", view, bundle))
        assert told["volumes"] == {"persist": {"name": "opscenter-site-7"}}


@pytest.mark.parametrize("name", ["Werk 7/Süd", "x'; touch pwned", "a" * 200, "a,b"])
def test_any_edge_name_makes_a_volume_of_its_own(name: str, tmp_path: Path) -> None:
    found = words(text("docker run", replace(VIEW, edge=name)), tmp_path, **LOGIN)
    volume = found[found.index("-v") + 1].removesuffix(":/persist")
    assert re.fullmatch(r"opscenter-[A-Za-z0-9_.-]{1,120}", volume)
    assert volume not in text("docker run", replace(VIEW, edge=f"{name}!"))


def test_compose_itself_reads_the_file(tmp_path: Path) -> None:
    program = tool("docker-compose")
    (tmp_path / "compose.yaml").write_text(text("compose.yaml", replace(VIEW, edge="site-7"), BUNDLE))
    environment = LOGIN | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    words = [program, "config", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    engine = told["services"]["engine"]
    assert engine["environment"]["OCI_PASSWORD"].replace("$$", "$") == LOGIN["OCI_PASSWORD"]
    assert [(mount["type"], mount["target"]) for mount in engine["volumes"]] == [("volume", "/persist")]
    assert told["volumes"]["persist"]["name"] == "opscenter-site-7"


def test_without_a_bundle_none_is_named(tmp_path: Path) -> None:
    assert not [command for command in commands.for_publish(VIEW) if "BUNDLE" in command.text.upper()]


def test_no_value_can_leave_its_quotes(tmp_path: Path) -> None:
    nasty = replace(VIEW, pipeline_url=NASTY, engine_url=NASTY, registry=NASTY, chart_url=NASTY, chart_version=NASTY)
    for command in commands.for_publish(nasty, NASTY):
        if command.language == "sh" and not command.title.startswith(("GitOps", "cosign")):  # test_gitops runs those
            found = words(command.text, tmp_path, **LOGIN)
            seen = [*found, *(found[-1].values() if isinstance(found[-1], dict) else ())]
            assert any(NASTY in word for word in seen), command.title
    service = yaml.safe_load(text("compose.yaml", nasty, NASTY))["services"]["engine"]
    assert service["environment"]["EDGE_BUNDLE"] == NASTY.replace("$", "$$"), "compose turns $$ back into $"


def test_compose_says_the_same_as_docker() -> None:
    told = yaml.safe_load(text("compose.yaml", bundle=BUNDLE))
    service = told["services"]["engine"]
    assert told["volumes"] == {"persist": {"name": "opscenter-houseprice"}}, "the same as docker's"
    assert service["image"] == VIEW.engine_url
    assert service["ports"] == ["8080:8080"] and service["volumes"] == ["persist:/persist"]
    assert service["environment"] == {
        "OCI_REGISTRY": "reg.example:5000",
        "CONFIG_CPUS": "1.25",
        "PIPELINE_URL": VIEW.pipeline_url,
        "EDGE_BUNDLE": BUNDLE,
        "OCI_USERNAME": "${OCI_USERNAME}",
        "OCI_PASSWORD": "${OCI_PASSWORD}",
    }
    assert service["mem_limit"] == "1536m" and service["cpus"] == 1.25


def test_helm_installs_the_exact_version_with_literal_credentials(tmp_path: Path) -> None:
    found = words(text("helm install", bundle=BUNDLE), tmp_path, **LOGIN)
    assert found[:3] == ["install", "houseprice", "oci://reg.example:5000/ml/charts/houseprice"]
    assert found[found.index("--version") + 1] == VIEW.chart_version
    assert {found[at + 1] for at, word in enumerate(found) if word == "--set-literal"} == {
        "ociRegistry.username=robot$ml+edge",
        "ociRegistry.password=p w,d'\"$x",
        f"edgeBundle={BUNDLE}",
    }
    assert "--atomic" in found and "--plain-http" not in found


def test_helm_upgrade_takes_the_new_charts_values(tmp_path: Path) -> None:
    found = words(text("helm upgrade"), tmp_path, **LOGIN)
    assert found[0] == "upgrade" and "--reset-then-reuse-values" in found


def test_helm_knows_every_option_that_we_print(tmp_path: Path) -> None:
    program = tool("helm")
    for name in ("install", "upgrade"):
        known = subprocess.run([program, name, "--help"], capture_output=True, text=True, check=True).stdout
        for word in words(text(f"helm {name}", replace(VIEW, plain_http=True), BUNDLE), tmp_path, **LOGIN):
            assert not word.startswith("--") or word in known, word


def test_the_engine_runs_without_a_container_too(tmp_path: Path) -> None:
    *arguments, environment = words(text("opsengine serve", bundle=BUNDLE), tmp_path, **LOGIN)
    assert arguments == ["serve"]
    wanted: dict[str, Any] = LOGIN | {"PIPELINE_URL": VIEW.pipeline_url, "EDGE_BUNDLE": BUNDLE, "PERSIST_DIR": "./data"}
    assert environment.items() >= wanted.items()


def test_without_an_engine_image_the_reader_sets_one(tmp_path: Path) -> None:
    view = replace(VIEW, engine_url="")
    assert words(text("docker run", view), tmp_path, ENGINE_IMAGE="my/engine:1", **LOGIN)[-1] == "my/engine:1"
    assert "image=my/engine:1" in words(text("helm install", view), tmp_path, ENGINE_IMAGE="my/engine:1", **LOGIN)
    assert yaml.safe_load(text("compose.yaml", view))["services"]["engine"]["image"] == "${ENGINE_IMAGE}"


def test_gpus_and_odd_memory_are_given(tmp_path: Path) -> None:
    needs = replace(VIEW.needs, gpu=True, memory="500000000")
    found = words(text("docker run", replace(VIEW, needs=needs)), tmp_path, **LOGIN)
    assert found[found.index("--gpus") + 1] == "all" and "--memory=500000000b" in found
    assert yaml.safe_load(text("compose.yaml", replace(VIEW, needs=needs)))["services"]["engine"]["gpus"] == "all"


def test_a_plain_http_registry_is_told_to_engine_and_helm(tmp_path: Path) -> None:
    view = replace(VIEW, plain_http=True)
    assert "OCI_PLAIN_HTTP=true" in words(text("docker run", view), tmp_path, **LOGIN)
    assert "--plain-http" in words(text("helm install", view), tmp_path, **LOGIN)


def test_the_sdks_shapes_are_there_once_published() -> None:
    assert commands.docker_run_variables(VIEW, BUNDLE) == {"PIPELINE_URL": VIEW.pipeline_url, "EDGE_BUNDLE": BUNDLE}
    helm = commands.helm_of(VIEW, BUNDLE)
    assert helm is not None
    assert helm.reference == f"reg.example:5000/ml/charts/houseprice@{VIEW.chart_digest}"
    assert (helm.chart, helm.version, helm.values) == (VIEW.chart_url, VIEW.chart_version, {"edgeBundle": BUNDLE})


def test_the_sdks_shapes_are_empty_before() -> None:
    waiting = replace(VIEW, pipeline_url="", chart_url="")
    assert commands.docker_run_variables(waiting) == {}
    assert commands.helm_of(waiting) is None


def test_a_moved_publish_tells_the_chart_where_it_is_now(tmp_path: Path) -> None:
    found = words(text("helm install", replace(VIEW, moved=True, plain_http=True)), tmp_path, **LOGIN)
    assert f"pipelineUrl={VIEW.pipeline_url}" in found and f"image={VIEW.engine_url}" in found
    assert "ociRegistry.registry=reg.example:5000" in found and "ociRegistry.plainHttp=true" in found


def test_only_a_signed_one_is_verified() -> None:
    assert "cosign verify" not in [command.title for command in commands.for_publish(VIEW)]
