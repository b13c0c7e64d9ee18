"""The work of publishing, outside of transactions. Killed anywhere and run again, it ends in the same digests."""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import artifact, chart, connections, doctor, queries, resuming
from publishing.chart import ChartContent
from publishing.describing import Describing
from publishing.doctor import Report
from publishing.engine_config import needs_of, notes_of
from publishing.errors import RegistryNotConfigured
from publishing.models import Publish, RegistrySettings
from publishing.oci.client import Client, Retries
from publishing.oci.faults import Cancelled, RegistryFault, Unavailable
from publishing.oci.plan import Plan
from publishing.self_contained import Naming
from publishing.transfer import Transfer, Work

logger = logging.getLogger(__name__)

# The database's clock decides, so that workers with wrong clocks do not take each other's work.
RECORD_SECONDS = 0.5
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 20.0  # four missed heartbeats: the worker is gone
RETRIES = Retries()  # a registry that restarts is back within these ten seconds or so; longer is for a person to see
ENQUEUED_SECONDS = 10.0  # a message that was sent this recently is still believed

NO_ENGINE = (
    "No engine image is configured (ENGINE_IMAGE, or the admin console), so none is named: give one to the commands as "
    "$ENGINE_IMAGE, or run the engine without a container."
)
STOPPED_SECONDS = 1.0  # how often it is looked whether somebody cancelled

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

    def check(self) -> None:
        """Raises `Lost` when somebody cancelled it or another run took it."""
        if not self._mine.exists():
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
        logger.warning("publish was cancelled or taken over", extra={"publish": publish_id})
        return False
    except ANTICIPATED as exc:
        return _fail(attempt, f"{exc} {queries.password_warning(queries.registry_settings(), exc)}".strip())
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
    work, describing = _work(attempt.publish, registry)
    meter, sessions = Meter(), resuming.left(attempt.publish, registry)
    with ExitStack() as stack:
        client = stack.enter_context(
            connections.to_registry(registry, retries=RETRIES, sleep=meter.sleep, sessions=sessions)
        )
        source = client
        if work.engine:
            host = work.engine.source.host
            source = connections.to_engine_source(host, client, retries=RETRIES, sleep=meter.sleep)
        if source is not client:
            stack.enter_context(source)
        running = Transfer(client, source, work, meter.add)

        def describe() -> None:
            describing.run(
                client,
                work.pipeline,
                work.chart,
                lambda _more: meter.add(0),
                engine_digest=running.engine_digest,
                image=running.image,
            )

        kept = _Kept(registry, client)
        try:
            for step, action in [*running.steps(), (describing.step, describe)]:
                attempt.write(step=step, bytes_total=running.total)
                _watch(attempt, meter, action, kept)
        except (RegistryFault, Unavailable):
            attempt.write(**kept.fields())  # for whoever tries again
            raise
        finally:
            kept.plan()
    _record(attempt, registry, work, running, describing)


def _work(publish: Publish, registry: RegistrySettings) -> tuple[Work, Describing]:
    version = publish.pipeline_version
    content = queries.content_of(version, queries.golden_of(publish))
    pipeline = artifact.build(content, registry.repository)
    location = f"{registry.registry}/{pipeline.repository}:{pipeline.tag}"
    engine = queries.engine_copy(publish, registry)
    engine_url = f"{registry.registry}/{engine.repository}:{engine.tag}" if engine else ""
    is_image = publish.packaging == Publish.Packaging.IMAGE
    images = f"{registry.repository}/images/{content.name}"
    image_url = f"{registry.registry}/{images}:{content.version}" if is_image else ""
    helm = chart.build(_chart_content(publish, registry, location, engine_url, image_url), registry.repository)
    work = Work(
        pipeline=pipeline,
        chart=helm,
        sources=queries.mount_sources(content, registry),
        engine=engine,
        platforms=tuple(settings.ENGINE_PLATFORMS),
        image=Naming(content.name, content.version, content.created_at, location) if is_image else None,
        image_repository=images,
        known_layer=queries.known_layer(version),
    )
    return work, Describing(publish, content, registry, queries.signing_key_in_use(), engine_url)


def _record(attempt: Attempt, registry: RegistrySettings, work: Work, done: Transfer, describing: Describing) -> None:
    host, engine = registry.registry, work.engine
    attempt.write(
        status=Publish.Status.PUBLISHED,
        error="",
        step="",
        uploads="",
        bytes_done=done.total,
        bytes_total=done.total,
        pipeline_url=f"{host}/{work.pipeline.repository}:{work.pipeline.tag}",
        pipeline_digest=work.pipeline.manifest.digest,
        chart_url=f"{host}/{work.chart.repository}",
        chart_version=work.chart.tag,
        chart_digest=work.chart.manifest.digest,
        engine_url=f"{host}/{engine.repository}:{engine.tag}" if engine else "",
        engine_digest=done.engine_digest,
        image_url=f"{host}/{work.image_repository}:{work.image.version}" if work.image else "",
        image_digest=done.image_digest,
        image_layer=done.layer,
        plain_http=registry.plain_http,
        signing_key=describing.key,
        notes=[*([] if engine else [NO_ENGINE]), *notes_of(attempt.publish.engine_config), *describing.notes],
        published_at=Now(),
    )


def _chart_content(
    publish: Publish, registry: RegistrySettings, pipeline_url: str, engine_url: str, image_url: str
) -> ChartContent:
    version = publish.pipeline_version
    return ChartContent(
        pipeline=version.pipeline.name,
        version=str(version.uuid),
        created_at=version.created_at,
        registry=registry.registry,
        plain_http=registry.plain_http,
        pipeline_url=pipeline_url,
        engine_url=engine_url,
        needs=needs_of(publish.engine_config),
        image_url=image_url,
    )


class _Kept:
    """What a push finds out that outlives this process: the registry's limits, and uploads that are half way."""

    def __init__(self, registry: RegistrySettings, client: Client) -> None:
        self._registry, self._client = registry, client
        self._plan, self._changes = Plan.of(registry.registry, registry.plan), client.sessions.changes

    def plan(self) -> None:
        """What a push learned of a registry's limits, the next one need not find out again."""
        found = self._client.plan
        if found != self._plan:
            stored = found.stored()
            self._plan = Plan.of(self._registry.registry, stored)
            RegistrySettings.objects.filter(pk=1, registry=self._registry.registry).update(plan=stored)

    def fields(self) -> dict[str, str]:
        """What there is to write to the publish; nothing when that was written already."""
        changes = self._client.sessions.changes
        if changes == self._changes:
            return {}
        self._changes = changes
        return {"uploads": resuming.sealed(self._client.sessions, self._registry)}


def _watch(attempt: Attempt, meter: Meter, work: Callable[[], None], kept: _Kept) -> None:
    """Runs network work in a thread while this one, which alone talks to the database, records how it goes."""
    with ThreadPoolExecutor(1, thread_name_prefix="push") as pool:
        try:
            future = pool.submit(work)
            recorded, beat = meter.done, time.monotonic()
            looked = beat
            while not wait([future], timeout=RECORD_SECONDS).done:
                found = kept.fields()
                if found or meter.done != recorded or time.monotonic() - beat >= HEARTBEAT_SECONDS:
                    recorded, beat = meter.done, time.monotonic()
                    attempt.write(bytes_done=recorded, **found)
                    kept.plan()
                elif time.monotonic() - looked >= STOPPED_SECONDS:
                    looked = time.monotonic()
                    attempt.check()
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


def check_registry() -> Report:
    """Tries what publishing needs at the registry of the settings, and keeps the result as the plan of later pushes.

    Takes seconds; leaves at most one small, fixed repository behind. Raises `RegistryNotConfigured`,
    `UnreadableSecret`.
    """
    if queries.registry_settings() is None:
        raise RegistryNotConfigured(str(queries.NOT_CONFIGURED))
    row = RegistrySettings.objects.get(pk=1)  # with the password
    report = doctor.examine(lambda: connections.registry_of(row), row.repository, saved_at=row.password_saved_at)
    changes: dict[str, Any] = {"checks": report.as_json(), "checked_at": Now()}
    if report.plan is not None:
        changes["plan"] = report.plan.stored()
    RegistrySettings.objects.filter(pk=1, registry=row.registry).update(**changes)
    return report
