"""Commands that run a publish, ready to copy: secrets stay shell variables. Pure."""

import json
import re
import shlex
from hashlib import sha256

from publishing import gitops
from publishing.engine_config import memory_bytes
from publishing.publish_view import CREDENTIALS, Command, Helm, PublishView

MOST_VOLUME = 100  # characters of a name


def for_publish(publish: PublishView, bundle: str | None = None) -> list[Command]:
    """The commands for a published pipeline, or for the edge that the view names, with the bundle that it needs yet.

    `$OCI_USERNAME`, `$OCI_PASSWORD` and, without a configured engine image, `$ENGINE_IMAGE` are the reader's to set.
    """
    alone = [Command("docker run, one image", _alone(publish, bundle))] if publish.image_url else []
    found = [
        *alone,
        Command("docker run", _container(publish, bundle, "docker")),
        Command("podman run", _container(publish, bundle, "podman")),
        Command("compose.yaml", _compose(publish, bundle), "yaml"),
        Command("helm install", _helm_install(publish, bundle)),
        Command("helm upgrade", _helm_upgrade(publish, bundle)),
        Command("opsengine serve", _process(publish, bundle)),
    ]
    if publish.signed:
        found.append(Command("cosign verify", _verify(publish)))
    return [*found, *gitops.for_publish(publish, _environment(publish, None), bundle)]


def docker_run_variables(publish: PublishView, bundle: str | None = None) -> dict[str, str]:
    """Environment of the engine that is not secret to the registry, as the SDK shows it. Empty until published."""
    if not publish.pipeline_url:
        return {}
    found = {"PIPELINE_URL": publish.pipeline_url}
    if publish.plain_http:
        found["OCI_PLAIN_HTTP"] = "true"
    return found | ({"EDGE_BUNDLE": bundle} if bundle else {})


def helm_of(publish: PublishView, bundle: str | None = None) -> Helm | None:
    """Where the chart is; None until published. The reference names its repository, so that it can be pulled."""
    if not publish.chart_url:
        return None
    return Helm(
        reference=f"{publish.chart_url}@{publish.chart_digest}",
        chart=publish.chart_url,
        version=publish.chart_version,
        values={"edgeBundle": bundle} if bundle else {},
    )


def _environment(publish: PublishView, bundle: str | None) -> dict[str, str]:
    """What an engine is told beside its credentials."""
    found = {"OCI_REGISTRY": publish.registry, "CONFIG_CPUS": f"{publish.needs.cpu:g}"}
    return found | docker_run_variables(publish, bundle)


def _container(publish: PublishView, bundle: str | None, program: str) -> str:
    lines = [f"{program} run -p 8080:8080", f"-v {_volume(publish)}:/persist"]
    lines += [f"-e {name}={shlex.quote(value)}" for name, value in _environment(publish, bundle).items()]
    lines += [f'-e {name}="${name}"' for name in CREDENTIALS]
    lines.append(f"--cpus={publish.needs.cpu:g} --memory={_docker_memory(publish.needs.memory)}{_gpus(publish)}")
    lines.append(shlex.quote(publish.engine_url) if publish.engine_url else '"$ENGINE_IMAGE"')
    return _joined(lines)


def _alone(publish: PublishView, bundle: str | None) -> str:
    """The image that holds the pipeline: nothing has to be said but how much of the machine it gets."""
    lines = ["docker run -p 8080:8080", f"-v {_volume(publish)}:/persist"]
    if bundle:
        lines.append(f"-e EDGE_BUNDLE={shlex.quote(bundle)}")
    lines.append(f"-e CONFIG_CPUS={publish.needs.cpu:g}")
    lines.append(f"--cpus={publish.needs.cpu:g} --memory={_docker_memory(publish.needs.memory)}{_gpus(publish)}")
    lines.append(shlex.quote(publish.image_url))
    return _joined(lines)


def _compose(publish: PublishView, bundle: str | None) -> str:
    told = [f"      {name}: {_compose_text(value)}" for name, value in _environment(publish, bundle).items()]
    told += [f"      {name}: ${{{name}}}" for name in CREDENTIALS]
    image = _compose_text(publish.engine_url) if publish.engine_url else "${ENGINE_IMAGE}"
    lines = [
        "services:",
        "  engine:",
        f"    image: {image}",
        "    restart: unless-stopped",
        "    ports:",
        '      - "8080:8080"',
        "    volumes:",
        "      - persist:/persist",
        f"    cpus: {publish.needs.cpu:g}",
        f"    mem_limit: {_docker_memory(publish.needs.memory)}",
        "    environment:",
        *told,
        "volumes:",
        "  persist:",
        f"    name: {_volume(publish)}",
    ]
    if publish.needs.gpu:
        lines.insert(3, "    gpus: all")
    return "\n".join(lines)


def _volume(publish: PublishView) -> str:
    """A named volume takes over the owner that the image gave /persist; a folder is root's, or missing for podman.

    It is the edge's, whatever that serves: session and logs outlive the publish. Without an edge it is the pipeline's.
    """
    name = publish.edge or publish.pipeline
    safe = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:MOST_VOLUME]
    # Two names that look the same now are still two.
    return f"opscenter-{safe}" if safe == name else f"opscenter-{safe}-{sha256(name.encode()).hexdigest()[:8]}"


def _helm_install(publish: PublishView, bundle: str | None) -> str:
    return _joined(
        [
            f"helm install {shlex.quote(publish.pipeline)} {shlex.quote(f'oci://{publish.chart_url}')}",
            *_helm_options(publish, bundle),
            "--create-namespace --atomic --timeout 10m",
        ]
    )


def _helm_upgrade(publish: PublishView, bundle: str | None) -> str:
    """Not `--reuse-values`: that keeps the old chart's own values, the old pipeline among them."""
    return _joined(
        [
            f"helm upgrade {shlex.quote(publish.pipeline)} {shlex.quote(f'oci://{publish.chart_url}')}",
            *_helm_options(publish, bundle),
            "--reset-then-reuse-values --atomic --timeout 10m",
        ]
    )


def _helm_options(publish: PublishView, bundle: str | None) -> list[str]:
    """Literal values: `--set` would split a password at its commas."""
    lines = [f"--version {shlex.quote(publish.chart_version)} --namespace {shlex.quote(publish.pipeline)}"]
    lines += [f'--set-literal ociRegistry.{name[4:].lower()}="${name}"' for name in CREDENTIALS]
    if bundle:
        lines.append(f"--set-literal edgeBundle={shlex.quote(bundle)}")
    if bundle or publish.edge:  # which is one engine
        lines += ["--set replicas=1"] if publish.needs.replicas != 1 else []
        lines += ["--set autoscaling.enabled=false"] if publish.needs.autoscale else []
    if not publish.runs_from:
        lines.append('--set-literal image="$ENGINE_IMAGE"')
    if publish.moved:
        lines += _moved(publish)
    if publish.plain_http:
        lines.append("--plain-http")
    return lines


def _moved(publish: PublishView) -> list[str]:
    """A chart is made for one registry; in another it must be told where its pipeline and image are."""
    found = {"pipelineUrl": publish.pipeline_url, "ociRegistry.registry": publish.registry}
    found |= {"image": publish.runs_from} if publish.runs_from else {}
    lines = [f"--set-literal {key}={shlex.quote(value)}" for key, value in found.items()]
    return [*lines, f"--set ociRegistry.plainHttp={'true' if publish.plain_http else 'false'}"]


def _verify(publish: PublishView) -> str:
    """Offline, cosign wants `--trusted-root` with a file that may be empty of roots: a key needs none."""
    pipeline = publish.pipeline_url.rpartition(":")[0]
    signed = [f"{pipeline}@{publish.pipeline_digest}", f"{publish.chart_url}@{publish.chart_digest}"]
    if publish.image_url:
        signed.append(f"{publish.image_url.rpartition(':')[0]}@{publish.image_digest}")
    plain = " --allow-http-registry" if publish.plain_http else ""
    return "\n".join(
        f"cosign verify --key signing-key.pub --insecure-ignore-tlog=true{plain} {shlex.quote(reference)}"
        for reference in signed
    )


def _process(publish: PublishView, bundle: str | None) -> str:
    told = _environment(publish, bundle) | {"PERSIST_DIR": "./data"}
    lines = [f"{name}={shlex.quote(value)}" for name, value in told.items()]
    lines += [f'{name}="${name}"' for name in CREDENTIALS]
    return _joined([*lines, "opsengine serve"])


def _joined(lines: list[str]) -> str:
    return " \\\n    ".join(lines)


def _compose_text(value: str) -> str:
    """A YAML string in which compose substitutes nothing."""
    return json.dumps(value.replace("$", "$$"), ensure_ascii=False)


def _docker_memory(quantity: str) -> str:
    """Docker's units are powers of 1024 and whole: exact bytes where a Kubernetes quantity is neither."""
    size = memory_bytes(quantity)
    return f"{size}b" if size % 1024**2 else f"{size // 1024**2}m"


def _gpus(publish: PublishView) -> str:
    return " --gpus all" if publish.needs.gpu else ""
