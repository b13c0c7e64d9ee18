"""Commands that run a publish, ready to copy: secrets stay shell variables. Pure."""

import json
import shlex
from dataclasses import dataclass, field

from publishing.engine_config import Needs, memory_bytes

CREDENTIALS = ("OCI_USERNAME", "OCI_PASSWORD")


@dataclass(frozen=True)
class PublishView:
    """What the commands and the SDK's shapes need to know of a publish. URLs are empty until it is Published."""

    pipeline: str
    version: str
    registry: str
    plain_http: bool
    pipeline_url: str
    engine_url: str
    chart_url: str
    chart_version: str
    chart_digest: str
    needs: Needs
    pipeline_digest: str = ""
    signed: bool = False


@dataclass(frozen=True)
class Command:
    """`title` names the tool; `text` is what is typed, or the content of the file that the title names."""

    title: str
    text: str


@dataclass(frozen=True)
class Helm:
    """The SDK's `helm` of a publish. `reference` is pullable by digest."""

    reference: str
    chart: str
    version: str
    values: dict[str, str] = field(default_factory=dict)


def for_publish(publish: PublishView, bundle: str | None = None) -> list[Command]:
    """The commands for a published pipeline, and for one edge of it when its bundle is given.

    `$OCI_USERNAME`, `$OCI_PASSWORD` and, without a configured engine image, `$ENGINE_IMAGE` are the reader's to set.
    """
    return [
        Command("docker run", _container(publish, bundle, "docker")),
        Command("podman run", _container(publish, bundle, "podman")),
        Command("compose.yaml", _compose(publish, bundle)),
        Command("helm install", _helm_install(publish, bundle)),
        Command("helm upgrade", _helm_upgrade(publish, bundle)),
        Command("opsengine serve", _process(publish, bundle)),
    ]


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
    lines = [f"{program} run -p 8080:8080", "-v ./data:/persist"]
    lines += [f"-e {name}={shlex.quote(value)}" for name, value in _environment(publish, bundle).items()]
    lines += [f'-e {name}="${name}"' for name in CREDENTIALS]
    lines.append(f"--cpus={publish.needs.cpu:g} --memory={_docker_memory(publish.needs.memory)}{_gpus(publish)}")
    lines.append(shlex.quote(publish.engine_url) if publish.engine_url else '"$ENGINE_IMAGE"')
    return _joined(lines)


def _compose(publish: PublishView, bundle: str | None) -> str:
    environment = [f"      {name}: {_compose_text(value)}" for name, value in _environment(publish, bundle).items()] + [
        f"      {name}: ${{{name}}}" for name in CREDENTIALS
    ]
    image = _compose_text(publish.engine_url) if publish.engine_url else "${ENGINE_IMAGE}"
    lines = [
        "services:",
        "  engine:",
        f"    image: {image}",
        "    restart: unless-stopped",
        "    ports:",
        '      - "8080:8080"',
        "    volumes:",
        "      - ./data:/persist",
        f"    cpus: {publish.needs.cpu:g}",
        f"    mem_limit: {_docker_memory(publish.needs.memory)}",
        "    environment:",
        *environment,
    ]
    if publish.needs.gpu:
        lines.insert(3, "    gpus: all")
    return "\n".join(lines)


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
    if not publish.engine_url:
        lines.append('--set-literal image="$ENGINE_IMAGE"')
    if publish.plain_http:
        lines.append("--plain-http")
    return lines


def _process(publish: PublishView, bundle: str | None) -> str:
    environment = _environment(publish, bundle) | {"PERSIST_DIR": "./data"}
    lines = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
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
