"""Publishes to and from a file, for a person at the center's machine. Nothing here writes to the database."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publishing import airgap, commands, connections, engine_config, queries
from publishing.airgap import Part
from publishing.errors import UnusableEngineConfig, UnusableExport
from publishing.models import Publish, RegistrySettings
from publishing.oci import manifests, references
from publishing.oci.client import Client, Retries
from publishing.oci.layout import BadLayout, Layout
from publishing.publish_view import Command, PublishView

MOST_NAME = 255


@dataclass(frozen=True)
class Exported:
    """What a file has: the names of its manifests for other clients, and its bytes."""

    names: list[str]
    size: int


@dataclass(frozen=True)
class Imported:
    """Where an import went, the commands that run it there, and the publish here that it is, if any."""

    parts: list[Part]
    registry: str
    commands: list[Command]
    known: int | None


def export_publish(pk: int, path: Path) -> Exported:
    """Writes a published publish to a tar; the file is whole or not there.

    Raises `UnusableExport`, `RegistryNotConfigured`, `RegistryFault`, `Unavailable`, `OSError`.
    """
    publish = Publish.objects.select_related("pipeline_version__pipeline", "signing_key").filter(pk=pk).first()
    if publish is None:
        raise UnusableExport(f"There is no publish {pk}.")
    if publish.status != Publish.Status.PUBLISHED:
        raise UnusableExport(f"Publish {pk} is {publish.status}; only a Published one can be exported.")
    with _registry() as (client, settings):
        parts = _parts(client, publish, settings)
        half = path.with_name(f".{path.name}.part")
        try:
            with half.open("wb") as file:
                airgap.export(client, settings.repository, parts, _about(publish), file)
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)
    return Exported([part.name for part in parts], path.stat().st_size)


def import_publish(path: Path) -> Imported:
    """Pushes a file's content to the configured registry, with the same digests; again does nothing twice.

    Raises `UnusableExport`, `RegistryNotConfigured`, `RegistryFault`, `Unavailable`, `OSError`.
    """
    try:
        with Layout(path) as found, _registry() as (client, settings):
            about = airgap.about_of(found)
            parts = airgap.push(client, settings.repository, found, lambda _more: None)
            view = _view(about, parts, settings)
    except BadLayout as exc:
        raise UnusableExport(exc.message) from exc
    known = Publish.objects.filter(status=Publish.Status.PUBLISHED, pipeline_digest=view.pipeline_digest).first()
    where = f"{settings.registry}/{settings.repository}"
    return Imported(parts, where, commands.for_publish(view), known.pk if known else None)


@contextmanager
def _registry() -> Iterator[tuple[Client, RegistrySettings]]:
    queries.registry_in_use()
    settings = RegistrySettings.objects.get(pk=1)  # with the password
    with connections.to_registry(settings, retries=Retries(), sleep=time.sleep) as client:
        yield client, settings


def _parts(client: Client, publish: Publish, settings: RegistrySettings) -> list[Part]:
    """What a publish has below the configured repository."""
    base = f"{settings.registry}/{settings.repository}/"
    for url in (publish.pipeline_url, publish.chart_url):
        if not url.startswith(base):
            raise UnusableExport(
                f"Publish {publish.pk} is in {url.partition('/')[0]}, and the registry settings name {base}: "
                "point them there, or publish again."
            )
    pipeline, tag = publish.pipeline_url.removeprefix(base).rsplit(":", 1)
    chart = publish.chart_url.removeprefix(base)
    parts = [
        Part("pipeline", pipeline, tag, publish.pipeline_digest),
        Part("chart", chart, publish.chart_version, publish.chart_digest),
    ]
    if publish.engine_url.startswith(f"{base}engines/"):
        parts.append(_engine_part(client, publish, settings))
    if publish.image_url.startswith(f"{base}images/"):
        image, tag = publish.image_url.removeprefix(base).rsplit(":", 1)
        parts.append(Part("image", image, tag, publish.image_digest))
    return parts


def _engine_part(client: Client, publish: Publish, settings: RegistrySettings) -> Part:
    base = settings.repository
    named = references.within(settings.registry, publish.engine_url.removeprefix(f"{settings.registry}/"))
    digest = publish.engine_digest or manifests.get(client, named.repository, named.wanted).digest
    # Without a tag of its own it gets one: other clients copy by tag, and what has none is swept in some registries.
    return Part("engine", named.repository.removeprefix(f"{base}/"), named.tag or digest[7:19], digest)


def _about(publish: Publish) -> dict[str, Any]:
    return {
        "format": 1,
        "pipeline": publish.pipeline_version.pipeline.name,
        "version": str(publish.pipeline_version.uuid),
        "engine_config": publish.engine_config,
        "engine_url": publish.engine_url,
        "signed": publish.signing_key is not None,
    }


def _view(about: dict[str, Any], parts: list[Part], settings: RegistrySettings) -> PublishView:
    """The publish as it is in the new registry. Raises `BadLayout` for a file that does not say what it is."""
    named = {part.name: part for part in parts}
    base = f"{settings.registry}/{settings.repository}"
    try:
        pipeline, chart, engine = named["pipeline"], named["chart"], named.get("engine")
        image = named.get("image")
        engine_url = f"{base}/{engine.repository}:{engine.tag}" if engine else str(about["engine_url"])
        return PublishView(
            pipeline=str(about["pipeline"])[:MOST_NAME],
            version=str(about["version"])[:MOST_NAME],
            registry=settings.registry,
            plain_http=settings.plain_http,
            pipeline_url=f"{base}/{pipeline.repository}:{pipeline.tag}",
            engine_url=engine_url[: 2 * MOST_NAME],
            chart_url=f"{base}/{chart.repository}",
            chart_version=chart.tag,
            chart_digest=chart.digest,
            needs=engine_config.needs_of(about["engine_config"]),
            image_url=f"{base}/{image.repository}:{image.tag}" if image else "",
            image_digest=image.digest if image else "",
            pipeline_digest=pipeline.digest,
            signed=bool(about.get("signed")),
            moved=True,
        )
    except (KeyError, TypeError, UnusableEngineConfig) as exc:
        raise BadLayout("The file does not say which publish it is: export it again.") from exc
