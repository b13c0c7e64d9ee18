"""Every documented value of the chart, rendered by Helm and held against Kubernetes' own schemas."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from publishing import chart
from tests.fakes.kubernetes import FakeCluster
from tests.publishing.conftest import tool
from tests.publishing.test_chart import BUNDLE, CONTENT

OLDEST, NEWEST = "1.28", "1.36"  # of Kubernetes

SCENARIOS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "edge": {"edgeBundle": BUNDLE},
    "existing secret": {
        "existingSecret": "mine",
        "edgeBundleInSecret": True,
        "imagePullSecrets": [{"name": "pull"}],
    },
    "registry login": {
        "ociRegistry": {"username": "robot$a", "password": 'p,w"\\d', "email": "a@b.c", "plainHttp": True}
    },
    "nodes' own login": {"ociRegistry": {"username": "u", "password": "p", "createPullSecret": False}},
    "engine": {
        "image": "reg/engine@sha256:" + "a" * 64,
        "pipelineInImage": True,
        "imagePullPolicy": "Always",
        "engine": {
            "cpus": 2.5,
            "debug": True,
            "localInferenceStorage": "512Mi",
            "pageSize": 100,
            "extraEnv": [{"name": "A", "value": "b"}],
        },
    },
    "pods": {
        "replicas": 3,
        "resources": {"limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": 1}, "requests": {"cpu": 1}},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
                }
            }
        },
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "ml"},
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
    },
    "as many as needed": {
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}
    },
    "service": {"service": {"name": "other", "type": "NodePort", "port": 80, "annotations": {"a": "b"}}},
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"a": "b"},
            "hosts": ["models.example.com"],
            "path": "/models",
            "pathType": "Exact",
            "tls": [{"secretName": "cert", "hosts": ["models.example.com"]}],
        }
    },
    "volume": {
        "persistence": {
            "enabled": True,
            "size": "1.5Gi",
            "storageClass": "fast",
            "accessModes": ["ReadWriteOncePod"],
            "annotations": {"a": "b"},
        }
    },
    "existing volume": {"persistence": {"enabled": True, "existingClaim": "mine"}},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "interval": "1m", "scrapeTimeout": "20s", "labels": {"release": "prom"}}
    },
    "network": {
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"team": "ml"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443, "protocol": "TCP"}]}],
        }
    },
    "disruptions": {"podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"}},
    "probes": {
        "probes": {
            "startup": {"failureThreshold": 10},
            "liveness": {"initialDelaySeconds": 1},
            "readiness": {"successThreshold": 1},
        }
    },
    "security": {
        "podSecurityContext": {"runAsUser": 20000, "runAsNonRoot": True},
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False},
    },
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "chart.tgz"
    path.write_bytes(chart.archive(CONTENT))
    return path


@pytest.fixture
def helm(tmp_path: Path) -> Callable[..., str]:
    program = tool("helm")
    homes = {name: str(tmp_path) for name in ("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    (tmp_path / "releases.yaml").write_text("[]")
    homes |= {"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "releases.yaml")}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [program, *map(str, words)], capture_output=True, text=True, timeout=60, env=homes, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def render(helm: Callable[..., str], archive: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The objects of a scenario by kind, the pull secret apart."""

    def make(name: str) -> dict[str, Any]:
        values = tmp_path / "values.yaml"
        values.write_text(yaml.safe_dump(SCENARIOS[name]))
        helm("lint", "--strict", archive, "--values", values)
        printed = helm("template", "site-7", archive, "--namespace", "edge", "--values", values)
        found = [item for item in yaml.safe_load_all(printed) if item]
        return {item["kind"] + (":pull" if item["metadata"]["name"].endswith("-pull") else ""): item for item in found}

    return make


@pytest.mark.parametrize("name", SCENARIOS)
def test_kubernetes_takes_every_documented_value(render: Callable[..., dict[str, Any]], name: str):
    for kind, item in render(name).items():
        if kind == "ServiceMonitor":  # a custom resource, which Kubernetes' own schemas do not have
            continue
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(item, version, strict=True)


def test_every_value_is_rendered_by_a_scenario_and_known_to_the_schema():
    """So that no value is documented without being tried, and none is in the schema without being documented."""
    values = yaml.safe_load((chart.SOURCE / "values.yaml").read_text())
    schema = json.loads((chart.SOURCE / "values.schema.json").read_text())["properties"]
    assert set(schema) - {"global"} == set(values)
    given: dict[str, set[str]] = {}
    for scenario in SCENARIOS.values():
        for key, value in scenario.items():
            given.setdefault(key, set()).update(value if isinstance(value, dict) else ())
    baked = {"pipelineUrl", "registry"}  # set when it is published
    assert set(values) - baked == set(given)
    nested = ("ociRegistry", "engine", "autoscaling", "service", "ingress", "serviceMonitor", "networkPolicy")
    for key in (*nested, "persistence"):
        assert set(values[key]) - baked == given[key], key
        assert set(schema[key]["properties"]) == set(values[key]), key


def test_the_ingress_leads_to_the_service(render: Callable[..., dict[str, Any]]):
    objects = render("ingress")
    rule = objects["Ingress"]["spec"]["rules"][0]
    assert rule["host"] == "models.example.com"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": objects["Service"]["metadata"]["name"], "port": {"name": "http"}}
    assert objects["Service"]["spec"]["ports"][0]["name"] == "http"


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("network", "NetworkPolicy", ("podSelector",)),
        ("disruptions", "PodDisruptionBudget", ("selector",)),
        ("monitoring", "ServiceMonitor", ("selector",)),
    ],
)
def test_what_selects_pods_selects_these(
    render: Callable[..., dict[str, Any]], name: str, kind: str, path: tuple[str, ...]
):
    objects = render(name)
    selected = objects[kind]["spec"][path[0]]["matchLabels"].items()
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    assert selected and selected <= labels
    assert selected <= objects["Service"]["metadata"]["labels"].items(), "a ServiceMonitor selects services"


def test_the_service_monitor_scrapes_the_metrics(render: Callable[..., dict[str, Any]]):
    found = render("monitoring")["ServiceMonitor"]
    assert found["apiVersion"] == "monitoring.coreos.com/v1" and found["metadata"]["labels"]["release"] == "prom"
    assert found["spec"]["endpoints"] == [
        {"port": "http", "path": "/metrics", "interval": "1m", "scrapeTimeout": "20s"}
    ]


def test_a_network_policy_lets_names_be_resolved(render: Callable[..., dict[str, Any]]):
    policy = render("network")["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {port["protocol"] for port in policy["egress"][0]["ports"] if port["port"] == 53} == {"UDP", "TCP"}


@pytest.mark.parametrize(
    "wrong",
    [
        "persistance.enabled=true",
        "autoscaling.maxReplicas=0",
        "pipelineInImage=perhaps",
        "ingress.host=a.example.com",
        "ingress.hosts={UPPER}",
        "podDisruptionBudget.maxUnavailable=some",
        "probes.startup.failureThreshold=0",
        "persistence.size=lots",
        "serviceMonitor.interval=often",
    ],
)
def test_a_misspelt_or_wrong_value_is_refused(archive: Path, wrong: str):
    done = subprocess.run([tool("helm"), "template", "x", archive, "--set", wrong], capture_output=True, text=True)
    assert done.returncode != 0 and "don't meet the specifications of the schema" in done.stderr


def test_an_ingress_without_a_host_is_refused(archive: Path):
    done = subprocess.run(
        [tool("helm"), "template", "x", archive, "--set", "ingress.enabled=true"], capture_output=True, text=True
    )
    assert done.returncode != 0 and "An ingress needs a host" in done.stderr


def test_the_autoscaler_scales_the_deployment_which_says_no_number_itself(render: Callable[..., dict[str, Any]]):
    objects = render("as many as needed")
    scaler, deployment = objects["HorizontalPodAutoscaler"], objects["Deployment"]
    assert (scaler["apiVersion"], scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (
        *("autoscaling/v2", 2, 5),
    )
    target = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert scaler["spec"]["scaleTargetRef"] == target
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}
    assert "replicas" not in deployment["spec"], "an upgrade would take back what the autoscaler set"
    requested = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert requested["cpu"], "utilization is a part of what is requested"
    assert "HorizontalPodAutoscaler" not in render("defaults") and render("defaults")["Deployment"]["spec"]["replicas"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("autoscaling.enabled=true", f"edgeBundle={BUNDLE}"), "an edge is one engine"),
        (("autoscaling.enabled=true", "persistence.enabled=true"), "A volume has one writer"),
        (("autoscaling.enabled=true", "autoscaling.minReplicas=2"), "minReplicas is at most"),
    ],
)
def test_an_autoscaler_that_cannot_work_is_refused(archive: Path, options: tuple[str, ...], words: str):
    given = [word for option in options for word in ("--set", option)]
    done = subprocess.run([tool("helm"), "template", "x", archive, *given], capture_output=True, text=True)
    assert done.returncode != 0 and words in done.stderr


def test_helm_packages_what_was_published_again(helm: Callable[..., str], archive: Path, tmp_path: Path):
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    helm("package", tmp_path / "houseprice")
    assert (tmp_path / f"houseprice-0.0.1-{CONTENT.version}.tgz").is_file()


def test_helm_upgrades_or_installs_in_a_cluster_and_shows_the_port_forward(helm: Callable[..., str], archive: Path):
    with FakeCluster() as cluster:
        printed = helm(
            *("upgrade", "--install", "site-7", archive, "--dry-run=client", "--kube-apiserver", cluster.url),
            *("--namespace", "ccfraud01", "--set", f"edgeBundle={BUNDLE}", "--set", "ingress.enabled=true"),
            *("--set", "ingress.hosts={a.example.com,b.example.com}"),
        )
    assert "kubectl port-forward svc/engine-svc -n ccfraud01 8080 --address 0.0.0.0" in printed
    assert "http://a.example.com/ http://b.example.com/" in printed
    assert "helm.sh/resource-policy: keep" in printed
    assert {method for method, _ in cluster.seen} == {"GET"}, "a dry run changes nothing"
