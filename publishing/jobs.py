"""The work of publishing, outside of transactions. Killed anywhere and run again, it ends in the same digests."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import artifact, chart, queries
from publishing.chart import ChartContent
from publishing.describing import Describing
from publishing.engine_config import needs_of
from publishing.models import Publish, RegistrySettings
from publishing.oci import packages
from publishing.oci.client import Client, Registry, Retries
from publishing.oci.faults import Cancelled, RegistryFault, Unavailable
from publishing.oci.packages import Package

logger = logging.getLogger(__name__)

# The database's clock decides, so that workers with wrong clocks do not take each other's work.
RECORD_SECONDS = 0.5
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 20.0  # four missed heartbeats: the worker is gone
RETRIES = Retries()  # a registry that restarts is back within these ten seconds or so; longer is for a person to see
ENQUEUED_SECONDS = 10.0  # a message that was sent this recently is still believed

NO_ENGINE = (
    "No engine image is configured (ENGINE_IMAGE), so none is named: give one to the commands as $ENGINE_IMAGE, or run "
    "the engine without a container."
)
ENGINE_AT_SOURCE = "The engine image is not copied to the registry: edges pull it from {image}."

ANTICIPATED = (RegistryFault, Unavailable, DomainError, UnreadableSecret)


class Lost(Exception):
    """Another run holds the publish now; this one must not write."""


class Attempt:
    """This run's hold on a publish. The first write after another run took it raises `Lost`."""

    def __init__(self, publish: Publish, attempt: uuid.UUID) -> None:
        self.publish = publish
        self._mine = Publish.objects.filter(pk=publish.pk, attempt=attempt, status=Publish.Status.PUBLISHING)

    def write(self, **fields: Any) -> None:
        """Records and shows that this run is alive."""
        if not self._mine.update(heartbeat_at=Now(), updated_at=Now(), **fields):
            raise Lost


class Meter:
    """Counts bytes for threads that push, and tells them to stop."""

    def __init__(self) -> None:
        self.done = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def add(self, more: int) -> None:
        """Raises `Cancelled` once stopped."""
        if self.stop.is_set():
            raise Cancelled
        with self._lock:
            self.done += more

    def sleep(self, seconds: float) -> None:
        """Sleeps, but not past a stop. Raises `Cancelled`."""
        if self.stop.wait(seconds):
            raise Cancelled


def publish(publish_id: int) -> bool:
    """Brings a publish to the registry; True when it arrived in this run.

    Does nothing when it is finished or another run holds it. What fails is recorded with its reason.
    """
    attempt = claim(publish_id)
    if attempt is None:
        return False
    try:
        _publish(attempt)
    except Lost:
        logger.warning("publish was taken over", extra={"publish": publish_id})
        return False
    except ANTICIPATED as exc:
        return _fail(attempt, str(exc))
    except Exception:
        logger.exception("publish failed", extra={"publish": publish_id})
        return _fail(attempt, "Publishing failed inside OpsCenter; the worker's log says why. Try again, or report it.")
    return True


def claim(publish_id: int) -> Attempt | None:
    """Takes a publish that waits or was abandoned; None when there is nothing to take."""
    attempt = uuid.uuid4()
    taken = (
        Publish.objects.filter(pk=publish_id)
        .filter(Q(status=Publish.Status.PENDING) | _abandoned())
        .update(
            status=Publish.Status.PUBLISHING,
            attempt=attempt,
            heartbeat_at=Now(),
            updated_at=Now(),
            step="",
            bytes_done=0,
        )
    )
    if not taken:
        return None
    return Attempt(
        Publish.objects.select_related("pipeline_version__pipeline__workspace", "created_by").get(pk=publish_id),
        attempt,
    )


def take_abandoned() -> list[int]:
    """Ids of publishes that no worker knows of: each is given to one caller within ten seconds."""
    waiting = Publish.objects.filter(Q(status=Publish.Status.PENDING) | _abandoned()).filter(
        Q(enqueued_at=None) | Q(enqueued_at__lt=Now() - timedelta(seconds=ENQUEUED_SECONDS))
    )
    ids = waiting.order_by("pk").values_list("pk", flat=True)
    return [pk for pk in list(ids) if waiting.filter(pk=pk).update(enqueued_at=Now())]


def _abandoned() -> Q:
    return Q(status=Publish.Status.PUBLISHING, heartbeat_at__lt=Now() - timedelta(seconds=STALE_SECONDS))


def _publish(attempt: Attempt) -> None:
    queries.registry_in_use()
    registry = RegistrySettings.objects.get(pk=1)  # with the password, which only we decrypt
    content = queries.content_of(attempt.publish.pipeline_version)
    pipeline = artifact.build(content, registry.repository)
    location = f"{registry.registry}/{pipeline.repository}:{pipeline.tag}"
    helm = chart.build(_chart_content(attempt.publish, registry, location), registry.repository)
    attempt.write(bytes_total=pipeline.size + helm.size)
    sources = queries.mount_sources(content, registry)
    key = queries.signing_key_in_use()
    describing = Describing(attempt.publish, content, registry, key, settings.ENGINE_IMAGE)
    _push(attempt, registry, pipeline, helm, sources, describing)
    attempt.write(
        status=Publish.Status.PUBLISHED,
        error="",
        step="",
        bytes_done=pipeline.size + helm.size,
        pipeline_url=location,
        pipeline_digest=pipeline.manifest.digest,
        chart_url=f"{registry.registry}/{helm.repository}",
        chart_version=helm.tag,
        chart_digest=helm.manifest.digest,
        engine_url=settings.ENGINE_IMAGE,
        plain_http=registry.plain_http,
        signing_key=key,
        notes=[
            ENGINE_AT_SOURCE.format(image=settings.ENGINE_IMAGE) if settings.ENGINE_IMAGE else NO_ENGINE,
            *describing.notes,
        ],
        published_at=Now(),
    )


def _chart_content(publish: Publish, registry: RegistrySettings, pipeline_url: str) -> ChartContent:
    version = publish.pipeline_version
    return ChartContent(
        pipeline=version.pipeline.name,
        version=str(version.uuid),
        created_at=version.created_at,
        registry=registry.registry,
        plain_http=registry.plain_http,
        pipeline_url=pipeline_url,
        engine_url=settings.ENGINE_IMAGE,
        needs=needs_of(publish.engine_config),
    )


def _push(
    attempt: Attempt,
    registry: RegistrySettings,
    pipeline: Package,
    helm: Package,
    sources: dict[str, str],
    describing: Describing,
) -> None:
    meter = Meter()
    where = Registry(
        registry.registry, registry.username, registry.password, registry.plain_http, registry.ca_certificate
    )
    with Client(where, retries=RETRIES, sleep=meter.sleep) as client:
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("Logging in to the registry", lambda: client.log_in(pipeline.repository)),
            ("Pushing the pipeline", lambda: packages.push(client, pipeline, meter.add, sources)),
            ("Pushing the Helm chart", lambda: packages.push(client, helm, meter.add)),
            (describing.step, lambda: describing.run(client, pipeline, helm, lambda _more: meter.add(0))),
        )
        for step, work in steps:
            attempt.write(step=step)
            _watch(attempt, meter, work)


def _watch(attempt: Attempt, meter: Meter, work: Callable[[], None]) -> None:
    """Runs network work in a thread while this one, which alone talks to the database, records how it goes."""
    with ThreadPoolExecutor(1, thread_name_prefix="push") as pool:
        try:
            future = pool.submit(work)
            recorded, beat = meter.done, time.monotonic()
            while not wait([future], timeout=RECORD_SECONDS).done:
                if meter.done != recorded or time.monotonic() - beat >= HEARTBEAT_SECONDS:
                    recorded, beat = meter.done, time.monotonic()
                    attempt.write(bytes_done=recorded)
            future.result()
        except BaseException:
            meter.stop.set()  # leaving the block waits for the thread
            raise


def _fail(attempt: Attempt, reason: str) -> bool:
    try:
        attempt.write(status=Publish.Status.ERROR, error=reason, step="")
    except Lost:
        logger.warning("publish was taken over while it failed", extra={"publish": attempt.publish.pk})
    return False
