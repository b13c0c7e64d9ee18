"""The center's own chart: rendered by Helm, held against Kubernetes' schemas, its variables against the settings."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.publishing.conftest import tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "chart"
OLDEST, NEWEST = "1.28", "1.36"  # of Kubernetes
NEEDED: dict[str, Any] = {
    "publicUrl": "https://ops.example.com",
    "secretKey": "s" * 60,
    "encryptionKeys": "mUfDSZgfbVBNCvsmBO6eWbWCTCgSBKfDLHYFzBAMXgI=",
    "admin": {"email": "ada@example.com", "password": "p$w, 'x'"},
    "database": {"url": "postgres://u:p@db:5432/ops"},
    "redis": {"url": "redis://:p@redis:6379/0"},
    "ociRegistry": {"registry": "ghcr.io"},
}
SCENARIOS: dict[str, dict[str, Any]] = {
    "needed": {},
    "registry": {
        "ociRegistry": {
            "enabled": True,
            "registry": "reg.big.corp:3579",
            "repository": "account123/pipelines",
            "email": "a@b.c",
            "username": "robot$a",
            "password": 'p,w"\\d $HOME',
            "plainHttp": True,
            "proxy": "http://proxy:3128",
        },
        "engineImage": "ghcr.io/you/engine:1.0",
    },
    "no observability": {"edgelb": {"enabled": True}, "pipelines": {"enabled": False}},
    "no registry": {"ociRegistry": {"enabled": False, "registry": ""}},
    "ingress": {
        "allowedHosts": ["other.example.com"],
        "behindProxy": True,
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"},
            "tls": [{"secretName": "cert", "hosts": ["ops.example.com"]}],
        },
        "service": {"type": "NodePort", "port": 8080, "annotations": {"a": "b"}},
    },
    "existing secret": {
        "existingSecret": "mine",
        **dict.fromkeys(("secretKey", "encryptionKeys"), ""),
        "admin": {"email": "ada@example.com", "password": ""},
        "database": {"url": ""},
        "redis": {"url": ""},
    },
    "pods": {
        "image": "reg/opscenter@sha256:" + "a" * 64,
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "pull"}],
        "web": {"replicas": 3, "resources": {"limits": {"memory": "2Gi"}}},
        "worker": {"replicas": 2, "concurrency": 4, "resources": {}},
        "beat": {"resources": {}},
        "extraEnv": [{"name": "OPSCENTER_LOG_LEVEL", "value": "DEBUG"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "ml"},
    },
    "volume": {
        "persistence": {"accessMode": "ReadWriteMany", "storageClass": "nfs", "size": "1.5Ti", "existingClaim": ""}
    },
    "existing volume": {"persistence": {"existingClaim": "mine"}},
}

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def helm(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = tool("helm")

    def run(values: dict[str, Any], *words: str | Path) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        command = [program, *map(str, words), "--values", str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], Objects]:
    """The objects of a scenario by kind and name."""

    def make(name: str) -> Objects:
        values = NEEDED | SCENARIOS[name]
        linted = helm(values, "lint", "--strict", CHART)
        assert linted.returncode == 0, linted.stdout
        done = helm(values, "template", "ops", CHART, "--namespace", "center")
        assert done.returncode == 0, done.stderr
        return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(done.stdout) if item}

    return make


def variables(objects: Objects) -> dict[str, str]:
    """The environment of the containers."""
    found: dict[str, str] = dict(objects["ConfigMap", "ops-settings"]["data"])
    secret: dict[str, str] = objects.get(("Secret", "ops-center"), {}).get("stringData", {})
    return found | secret


@pytest.mark.parametrize("name", SCENARIOS)
def test_kubernetes_takes_every_documented_value(render: Callable[[str], Objects], name: str) -> None:
    for item in render(name).values():
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(item, version, strict=True)


def test_every_value_is_rendered_by_a_scenario_and_known_to_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(schema) - {"global"} == set(values)
    given: dict[str, set[str]] = {}
    for scenario in (NEEDED, *SCENARIOS.values()):
        for key, value in scenario.items():
            given.setdefault(key, set()).update(value if isinstance(value, dict) else ())
    assert set(values) == set(given)
    for key, parts in schema.items():
        if "properties" in parts:
            assert set(parts["properties"]) == set(values[key]) == given[key], key


def test_every_variable_is_one_that_the_center_reads(render: Callable[[str], Objects]) -> None:
    read = set(
        re.findall(r'env\.\w+\("(\w+)"', "".join(file.read_text() for file in (ROOT / "opscenter").glob("*.py")))
    )
    for name in SCENARIOS:
        assert set(variables(render(name))) <= read, name


def test_the_registry_values_arrive_in_the_settings_unchanged(render: Callable[[str], Objects], tmp_path: Path) -> None:
    names = ("REGISTRY", "REPOSITORY", "EMAIL", "USERNAME", "PASSWORD", "PLAIN_HTTP", "PROXY", "ENABLED")
    shown = f"[getattr(settings, 'OCI_' + name) for name in {names}]"
    told = f"import json; from django.conf import settings; print(json.dumps({shown}))"
    environment = variables(render("registry")) | {
        "OPSCENTER_DATA": str(tmp_path),
        "OPSCENTER_STATIC": str(tmp_path / "static"),
        "DJANGO_SETTINGS_MODULE": "opscenter.settings",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run([sys.executable, "-c", told], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    registry = SCENARIOS["registry"]["ociRegistry"]
    keys = ("registry", "repository", "email", "username", "password", "plainHttp", "proxy", "enabled")
    assert json.loads(done.stdout) == [registry[key] for key in keys]


@pytest.mark.parametrize(("name", "enabled"), [("needed", "true"), ("no observability", "false")])
def test_observability_needs_both_of_its_values(render: Callable[[str], Objects], name: str, enabled: str) -> None:
    assert variables(render(name))["OPSCENTER_EDGE_OBSERVABILITY"] == enabled


@pytest.mark.parametrize("role", ["web", "worker", "beat"])
def test_every_role_is_locked_down_and_waits_for_the_database(render: Callable[[str], Objects], role: str) -> None:
    spec = render("needed")["Deployment", f"ops-{role}"]["spec"]["template"]["spec"]
    (first,), (serving,) = spec["initContainers"], spec["containers"]
    assert (first["args"], serving["args"]) == (["bootstrap"], [role])
    for container in (first, serving):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_with_a_volume_of_one_node_all_pods_are_on_it(render: Callable[[str], Objects]) -> None:
    labels = render("needed")["Deployment", "ops-web"]["spec"]["template"]["metadata"]["labels"].items()
    for role in ("web", "worker", "beat"):
        spec = render("needed")["Deployment", f"ops-{role}"]["spec"]["template"]["spec"]
        (rule,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule["labelSelector"]["matchLabels"].items() <= labels
        assert "affinity" not in render("volume")["Deployment", f"ops-{role}"]["spec"]["template"]["spec"]


def test_the_service_and_the_ingress_lead_to_web_only(render: Callable[[str], Objects]) -> None:
    objects = render("ingress")
    service = objects["Service", "ops"]
    for role, leads in (("web", True), ("worker", False), ("beat", False)):
        labels = objects["Deployment", f"ops-{role}"]["spec"]["template"]["metadata"]["labels"].items()
        assert (service["spec"]["selector"].items() <= labels) is leads
    rules = objects["Ingress", "ops"]["spec"]["rules"]
    assert [rule["host"] for rule in rules] == ["ops.example.com", "other.example.com"]
    assert rules[0]["http"]["paths"][0]["backend"]["service"] == {"name": "ops", "port": {"name": "http"}}


def test_with_an_existing_secret_nothing_secret_is_rendered(render: Callable[[str], Objects]) -> None:
    objects = render("existing secret")
    assert not [key for key in objects if key[0] == "Secret"]
    container = objects["Deployment", "ops-web"]["spec"]["template"]["spec"]["containers"][0]
    assert {"secretRef": {"name": "mine"}} in container["envFrom"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("publicUrl", "Set publicUrl"),
        ("secretKey", "Set secretKey"),
        ("encryptionKeys", "Set encryptionKeys"),
        ("admin", "Set admin"),
        ("database", "Set database.url"),
        ("redis", "Set redis.url"),
        ("ociRegistry", "Set ociRegistry.registry"),
    ],
)
def test_a_missing_value_is_told_with_what_to_set(
    helm: Callable[..., subprocess.CompletedProcess[str]], path: str, told: str
) -> None:
    done = helm({key: value for key, value in NEEDED.items() if key != path}, "template", "ops", CHART)
    assert done.returncode != 0 and told in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"ociRegistry": {"registry": "https://ghcr.io/me"}},
        {"ociRegistry": {"registy": "ghcr.io"}},
        {"publicUrl": "ops.example.com"},
        {"secretKey": "short"},
        {"persistence": {"accessMode": "ReadWriteOncePod"}},
        {"workers": 3},
    ],
)
def test_a_misspelt_or_wrong_value_is_refused(
    helm: Callable[..., subprocess.CompletedProcess[str]], wrong: dict[str, Any]
) -> None:
    done = helm(NEEDED | wrong, "template", "ops", CHART)
    assert done.returncode != 0 and "don't meet the specifications of the schema" in done.stderr


def test_helm_packages_it(helm: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    done = subprocess.run([tool("helm"), "package", CHART, "-d", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0 and [file.name for file in tmp_path.glob("*.tgz")] == ["opscenter-0.1.0.tgz"]


def test_the_container_image_takes_every_app_along() -> None:
    """What is not named in .dockerignore is not in the image."""
    named = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    apps = {file.parent.name for file in ROOT.glob("*/apps.py")}
    assert apps <= named
