"""Files for repositories that Argo CD, Flux or kustomize apply. Pure.

Nothing secret belongs in Git, so the chart is told the names of Secrets that `secrets_command` makes in the cluster.
Shapes: Argo CD's Application with an OCI Helm source, Flux's OCIRepository v1 and HelmRelease v2, kustomize's `images`.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from publishing.publish_view import CREDENTIALS, Command, PublishView

CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
PLACEHOLDER = "opscenter-engine"  # the image name that a base's Deployment carries, for kustomize to replace
KEY_SECRET = "opscenter-signing-key"  # with the public key under a name that ends in .pub


def for_publish(publish: PublishView, environment: Mapping[str, str], bundle: str | None = None) -> list[Command]:
    """What is committed, and the command that makes the secrets it names; for one edge when its bundle is given.

    `environment` is what an engine is told that is not secret.
    """
    found = [
        Command("GitOps: kubectl create secret", secrets_command(publish, bundle)),
        Command("GitOps: Argo CD Application", _documents(_argo(publish, bundle)), "yaml"),
        Command("GitOps: Flux OCIRepository and HelmRelease", _documents(*_flux(publish, bundle)), "yaml"),
    ]
    if publish.runs_from:
        found.append(Command("GitOps: kustomization.yaml", _documents(_kustomization(publish, environment)), "yaml"))
    return found


def secrets_command(publish: PublishView, bundle: str | None) -> str:
    """Makes the namespace, the engine's Secret and the one that its image is pulled with."""
    space, name = shlex.quote(publish.pipeline), shlex.quote(_secret(publish))
    literals = [f'--from-literal={key}="${key}"' for key in CREDENTIALS]
    literals += [f"--from-literal={shlex.quote(f'EDGE_BUNDLE={bundle}')}"] if bundle else []
    login = [
        f"kubectl create secret docker-registry {shlex.quote(_pull_secret(publish))} --namespace {space}",
        f"--docker-server={shlex.quote(publish.registry)}",
        '--docker-username="$OCI_USERNAME" --docker-password="$OCI_PASSWORD"',
    ]
    return "\n".join(
        (
            f"kubectl get namespace {space} || kubectl create namespace {space}",
            _joined([f"kubectl create secret generic {name} --namespace {space}", *literals]),
            _joined(login),
        )
    )


def values(publish: PublishView, bundle: str | None) -> dict[str, Any]:
    """The chart's values that a repository may hold."""
    found: dict[str, Any] = {
        "existingSecret": _secret(publish),
        "imagePullSecrets": [{"name": _pull_secret(publish)}],
    }
    if bundle:
        found["edgeBundleInSecret"] = True
    if bundle or publish.edge:  # which is one engine
        found |= {"replicas": 1} if publish.needs.replicas != 1 else {}
        found |= {"autoscaling": {"enabled": False}} if publish.needs.autoscale else {}
    if not publish.runs_from:
        found["image"] = "registry.example.com/ml/engines/opsengine:CHANGE-ME"
    if publish.moved:
        found |= moved_values(publish)
    return found


def moved_values(publish: PublishView) -> dict[str, Any]:
    """What a chart must be told that was made for another registry."""
    found: dict[str, Any] = {
        "pipelineUrl": publish.pipeline_url,
        "ociRegistry": {"registry": publish.registry, "plainHttp": publish.plain_http},
    }
    return found | ({"image": publish.runs_from} if publish.runs_from else {})


def _argo(publish: PublishView, bundle: str | None) -> dict[str, Any]:
    folder, _, chart = publish.chart_url.rpartition("/")
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": publish.pipeline, "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {
                "repoURL": folder,  # an OCI Helm source has no oci:// here
                "chart": chart,
                "targetRevision": publish.chart_version,
                "helm": {"releaseName": publish.pipeline, "valuesObject": values(publish, bundle)},
            },
            "destination": {"server": "https://kubernetes.default.svc", "namespace": publish.pipeline},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "syncOptions": ["CreateNamespace=true"],
            },
        },
    }


def _flux(publish: PublishView, bundle: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    metadata = {"name": publish.pipeline, "namespace": publish.pipeline}
    source: dict[str, Any] = {
        "interval": "10m",
        "url": f"oci://{publish.chart_url}",
        "ref": {"digest": publish.chart_digest},
        "layerSelector": {"mediaType": CHART_LAYER, "operation": "copy"},
        "secretRef": {"name": _pull_secret(publish)},
    }
    if publish.plain_http:
        source["insecure"] = True
    if publish.signed:
        source["verify"] = {"provider": "cosign", "secretRef": {"name": KEY_SECRET}}
    release = {
        "interval": "10m",
        "releaseName": publish.pipeline,
        "chartRef": {"kind": "OCIRepository", "name": publish.pipeline},
        "values": values(publish, bundle),
    }
    return (
        {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "metadata": metadata, "spec": source},
        {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "metadata": metadata, "spec": release},
    )


def _kustomization(publish: PublishView, environment: Mapping[str, str]) -> dict[str, Any]:
    """For a base of one's own whose Deployment has the image `opscenter-engine` and `envFrom` the map `engine`."""
    name, at, digest = publish.runs_from.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    image = {"name": PLACEHOLDER, "newName": repository, **({"digest": digest} if at else {"newTag": tag})}
    held = {"PIPELINE_URL"} if publish.image_url else set()  # the image has it
    literals = [f"{key}={value}" for key, value in environment.items() if key not in held]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../base"],
        "images": [image],
        "configMapGenerator": [{"name": "engine", "literals": literals}],
    }


def _secret(publish: PublishView) -> str:
    return f"{publish.pipeline}-engine-login"


def _pull_secret(publish: PublishView) -> str:
    return f"{publish.pipeline}-engine-pull"


def _joined(lines: list[str]) -> str:
    return " \\\n    ".join(lines)


def _documents(*documents: Mapping[str, Any]) -> str:
    return "\n---\n".join("\n".join(_lines(document)) for document in documents)


def _lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Block YAML whose scalars are JSON, which every YAML 1.2 reader takes literally."""
    found: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            found += [f"{indent}{key}:", *_lines(item, f"{indent}  ")]
        elif isinstance(item, list) and item and isinstance(item[0], Mapping):
            found.append(f"{indent}{key}:")
            for each in item:
                first, *rest = _lines(each, f"{indent}    ")
                found += [f"{indent}  - {first.lstrip()}", *rest]
        else:
            found.append(f"{indent}{key}: {json.dumps(item, ensure_ascii=False)}")
    return found
