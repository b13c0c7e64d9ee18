"""GitOps files and the commands beside them: parsed and run, not looked at."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from publishing import commands
from publishing.publish_view import PublishView
from publishing.scaling import Autoscale
from tests.publishing.test_commands import BUNDLE, LOGIN, NASTY, VIEW, text

SIGNED = replace(VIEW, signed=True, pipeline_digest=f"sha256:{'b' * 64}")


def run(script: str, tmp_path: Path) -> list[list[str]]:
    """What each program in a script is called with, in a real shell."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("kubectl", "cosign"):
        (tools / name).write_text("#!/usr/bin/env python3\nimport json,sys;print(json.dumps(sys.argv))\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:/usr/bin:/bin"} | LOGIN
    done = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert not (tmp_path / "pwned").exists()
    return [[Path(words[0]).name, *words[1:]] for words in map(json.loads, done.stdout.splitlines())]


def documents(title: str, view: PublishView = VIEW, bundle: str | None = None) -> list[Any]:
    return list(yaml.safe_load_all(text(f"GitOps: {title}", view, bundle)))


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in strings(item)]
    if isinstance(value, list):
        return [found for item in value for found in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("bundle", [None, BUNDLE, NASTY])
def test_every_command_is_shell_and_every_file_is_yaml(shell: str, bundle: str | None) -> None:
    for command in commands.for_publish(SIGNED, bundle):
        if command.language == "sh":
            done = subprocess.run([shell, "-n"], input=command.text, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), command.title
        else:
            assert all(isinstance(item, dict) for item in yaml.safe_load_all(command.text)), command.title


def test_the_secrets_that_the_files_name_are_made(tmp_path: Path) -> None:
    made = run(text("GitOps: kubectl create secret", bundle=BUNDLE), tmp_path)
    assert made[0] == ["kubectl", "get", "namespace", "houseprice"]
    assert made[1][:5] == ["kubectl", "create", "secret", "generic", "houseprice-engine-login"]
    assert [word for word in made[1] if word.startswith("--from-literal=")] == [
        "--from-literal=OCI_USERNAME=robot$ml+edge",
        "--from-literal=OCI_PASSWORD=p w,d'\"$x",
        f"--from-literal=EDGE_BUNDLE={BUNDLE}",
    ]
    assert made[2][:5] == ["kubectl", "create", "secret", "docker-registry", "houseprice-engine-pull"]
    assert "--docker-server=reg.example:5000" in made[2]


def test_argo_cd_gets_the_charts_folder_name_and_exact_version() -> None:
    (found,) = documents("Argo CD Application", bundle=BUNDLE)
    assert (found["apiVersion"], found["kind"]) == ("argoproj.io/v1alpha1", "Application")
    source = found["spec"]["source"]
    assert source["repoURL"] == "reg.example:5000/ml/charts"
    assert (source["chart"], source["targetRevision"]) == ("houseprice", VIEW.chart_version)
    assert source["helm"]["valuesObject"] == {
        "existingSecret": "houseprice-engine-login",
        "imagePullSecrets": [{"name": "houseprice-engine-pull"}],
        "edgeBundleInSecret": True,
    }


def test_flux_pins_the_digest_and_verifies_what_is_signed() -> None:
    source, release = documents("Flux OCIRepository and HelmRelease", replace(SIGNED, plain_http=True))
    assert source["spec"]["url"] == "oci://reg.example:5000/ml/charts/houseprice"
    assert source["spec"]["ref"] == {"digest": VIEW.chart_digest}
    assert source["spec"]["insecure"] is True and source["spec"]["verify"]["provider"] == "cosign"
    assert release["spec"]["chartRef"] == {"kind": source["kind"], "name": source["metadata"]["name"]}
    source, _ = documents("Flux OCIRepository and HelmRelease")
    assert "verify" not in source["spec"] and "insecure" not in source["spec"]


@pytest.mark.parametrize(
    ("url", "image"),
    [
        ("reg:5000/ml/engine:1", {"newName": "reg:5000/ml/engine", "newTag": "1"}),
        ("reg:5000/ml/engine", {"newName": "reg:5000/ml/engine", "newTag": "latest"}),
        (
            f"reg:5000/ml/engine:1@sha256:{'c' * 64}",
            {"newName": "reg:5000/ml/engine", "digest": f"sha256:{'c' * 64}"},
        ),
    ],
)
def test_kustomize_gets_the_image_and_the_engines_environment(url: str, image: dict[str, str]) -> None:
    (found,) = documents("kustomization.yaml", replace(VIEW, engine_url=url))
    assert found["images"] == [{"name": "opscenter-engine"} | image]
    assert f"PIPELINE_URL={VIEW.pipeline_url}" in found["configMapGenerator"][0]["literals"]


def test_the_one_image_is_the_single_reference_of_gitops(tmp_path: Path) -> None:
    view = replace(SIGNED, image_url="reg:5000/ml/images/houseprice:1", image_digest=f"sha256:{'d' * 64}")
    (found,) = documents("kustomization.yaml", view)
    assert found["images"] == [{"name": "opscenter-engine", "newName": "reg:5000/ml/images/houseprice", "newTag": "1"}]
    assert not [line for line in found["configMapGenerator"][0]["literals"] if line.startswith("PIPELINE_URL=")]
    (argo,) = documents("Argo CD Application", replace(view, moved=True))
    assert argo["spec"]["source"]["helm"]["valuesObject"]["image"] == view.image_url
    assert run(text("cosign verify", view), tmp_path)[2][-1] == f"reg:5000/ml/images/houseprice@{view.image_digest}"


def test_an_edge_is_one_engine_whatever_the_load() -> None:
    view = replace(VIEW, needs=replace(VIEW.needs, replicas=3, autoscale=Autoscale(2, 5, 80)))
    (argo,) = documents("Argo CD Application", view, BUNDLE)
    values = argo["spec"]["source"]["helm"]["valuesObject"]
    assert (values["replicas"], values["autoscaling"]) == (1, {"enabled": False})
    helm = text("helm install", view, BUNDLE)
    assert "--set replicas=1" in helm and "--set autoscaling.enabled=false" in helm
    assert "autoscaling" not in text("helm install", view)
    assert "--set autoscaling.enabled=false" in text("helm upgrade", replace(view, edge="site-7")), "it needs no bundle"


def test_nothing_secret_is_in_a_file() -> None:
    for command in commands.for_publish(SIGNED, BUNDLE):
        if command.title.startswith("GitOps") and command.language == "yaml":
            assert BUNDLE not in command.text and "PASSWORD" not in command.text


def test_no_value_can_leave_its_quotes(tmp_path: Path) -> None:
    nasty = replace(
        SIGNED, pipeline=NASTY, pipeline_url=f"{NASTY}:1", engine_url=NASTY, registry=NASTY, chart_url=f"a/{NASTY}"
    )
    for command in commands.for_publish(nasty, NASTY):
        if command.title.startswith(("GitOps", "cosign")) and command.language == "sh":
            assert any(NASTY in word for words in run(command.text, tmp_path) for word in words), command.title
        elif command.language == "yaml":
            found = strings(list(yaml.safe_load_all(command.text)))
            assert any(NASTY in word or NASTY.replace("$", "$$") in word for word in found), command.title


def test_cosign_is_asked_about_pipeline_and_chart_by_digest(tmp_path: Path) -> None:
    found = run(text("cosign verify", SIGNED), tmp_path)
    assert [words[-1] for words in found] == [
        f"reg.example:5000/ml/pipelines/houseprice@{SIGNED.pipeline_digest}",
        f"{VIEW.chart_url}@{VIEW.chart_digest}",
    ]
