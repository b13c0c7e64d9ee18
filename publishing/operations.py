"""Verbs of publishing. Each is one short transaction; the work itself is a task's."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext

from catalog import queries as catalog
from catalog.models import ModelVersion, PipelineVersion, Role, User
from common.encryption import UnreadableSecret
from publishing import engine_config as engines
from publishing import golden as goldens
from publishing import queries, schema_changes, settling, signing, tasks
from publishing.errors import (
    BreakingChange,
    ModelsNotReady,
    NotFailed,
    NotPublished,
    NotRunning,
    UnusableEngineImage,
    UnusableRegistry,
    UnusableSigningKey,
)
from publishing.models import Publish, RegistrySettings, SigningKey
from publishing.oci.faults import RegistryFault
from publishing.oci.transport import Transport

Source = RegistrySettings.Source

# What a row that no administrator edited takes from its source again and again.
FOLLOWED = {
    Source.ENVIRONMENT: frozenset({"registry", "repository", "email", "username", "password", "plain_http", "proxy"}),
    Source.BUILT_IN: frozenset({"registry", "username", "password", "plain_http"}),
    Source.ADMINISTRATOR: frozenset[str](),
}
EDITABLE = frozenset(
    {"enabled", "registry", "repository", "email", "username", "password", "plain_http", "ca_certificate", "proxy"}
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A publish that would be replaced, and what would be different for its callers."""

    publish: Publish
    comparison: schema_changes.Comparison


def publish(
    *,
    actor: User,
    version: PipelineVersion,
    engine_config: Mapping[str, Any] | None = None,
    replaces: Sequence[int] = (),
    packaging: str = Publish.Packaging.ARTIFACT,
    allow_breaking: bool = False,
    golden: Mapping[str, Any] | None = None,
) -> Publish:
    """A publish of a version, accepted and on its way to the registry; every call makes one, also of the same version.

    `replaces` are ids of published publishes whose edges move to this one when it has arrived; `packaging` "image"
    makes an image of engine and pipeline too; `golden` is a request with its answer that engines try before they serve,
    left out: the one that the version is published with. Refuses, beside wrong roles: `RegistryNotConfigured`,
    `ModelsNotReady`, `NotPublished`, `UnusableEngineConfig`, `UnusableEngineImage`, `UnusableGolden`, `OtherGolden`,
    and, unless it is allowed, `BreakingChange` when callers or readers of a replaced one would break.
    """
    version = catalog.pipeline_version_for(actor, version.pk, Role.COLLABORATOR)
    registry = queries.registry_in_use()
    models = ready_models(version)
    given = engine_config if engine_config is not None else version.deployment_config or None
    checked = engines.checked(given, arch=models[0].arch, accel=models[0].accel)
    replaced = [_replaceable(actor, pk) for pk in dict.fromkeys(replaces)]
    if not allow_breaking:
        _require_unbroken(version, replaced)
    request = goldens.checked(golden, queries.interfaces_of([version])[version.pk]) if golden is not None else None
    made = Publish(
        pipeline_version=version,
        engine_config=checked,
        packaging=packaging,
        notes=engines.notes_of(checked),
        created_by=actor,
        enqueued_at=timezone.now(),
    )
    _refuse_without_engine(made, registry)
    with transaction.atomic():
        made.golden = settling.settled(version, request)
        made.save()
        made.replaces.set(replaced)
        _enqueue(made.pk)
    return queries.publish_for(actor, made.pk)


def compared(*, actor: User, version: PipelineVersion, replaces: Sequence[int]) -> list[Compared]:
    """What a publish of this version would change for callers of each one that it replaces. Refuses as `publish`."""
    version = catalog.pipeline_version_for(actor, version.pk, Role.COLLABORATOR)
    return _compared(version, [_replaceable(actor, pk) for pk in dict.fromkeys(replaces)])


def retry(*, actor: User, publish: Publish) -> Publish:
    """Sends a failed publish on its way again.

    Refuses with `NotFailed` one that did not fail, with `OtherGolden` one that ships what the version is not published
    with.
    """
    queries.publish_for(actor, publish.pk, Role.COLLABORATOR)
    queries.registry_in_use()
    with transaction.atomic():
        settling.refuse_other(publish)
        changed = Publish.objects.filter(pk=publish.pk, status=Publish.Status.ERROR).update(
            status=Publish.Status.PENDING,
            error="",
            step="",
            bytes_done=0,
            attempt=None,
            heartbeat_at=None,
            enqueued_at=Now(),
            updated_at=Now(),
        )
        if not changed:
            raise NotFailed(
                gettext("Publish %(publish)s did not fail, so there is nothing to try again.") % {"publish": publish.pk}
            )
        _enqueue(publish.pk)
    return queries.publish_for(actor, publish.pk)


def cancel(*, actor: User, publish: Publish) -> Publish:
    """Stops a publish that waits or runs; its worker notices within about two seconds, and it can be tried again.

    Refuses with `NotRunning` one that is finished.
    """
    queries.publish_for(actor, publish.pk, Role.COLLABORATOR)
    running = [Publish.Status.PENDING, Publish.Status.PUBLISHING]
    with transaction.atomic():
        changed = Publish.objects.filter(pk=publish.pk, status__in=running).update(
            status=Publish.Status.ERROR,
            error=f"Cancelled by {actor}.",
            step="",
            attempt=None,  # so the run that holds it finds at its next look that it lost it
            updated_at=Now(),
        )
    found = queries.publish_for(actor, publish.pk)
    if not changed:
        raise NotRunning(
            gettext("Publish %(publish)s is %(status)s, so there is nothing to cancel.")
            % {"publish": publish.pk, "status": found.status}
        )
    return found


def change_registry(*, actor: User, **changes: Any) -> RegistrySettings:
    """Sets fields of the registry settings, for an administrator; a `password` that is left out stays.

    Raises `Forbidden` and `UnusableRegistry`, which names the field.
    """
    queries.require_administrator(actor)
    unknown = set(changes) - EDITABLE
    if unknown:
        raise UnusableRegistry(
            gettext("The registry settings have no %(unknown)s.") % {"unknown": ", ".join(sorted(unknown))}
        )
    with transaction.atomic():
        row = queries.registry_settings() or RegistrySettings(pk=1)
        edited = {name for name, value in changes.items() if name == "password" or getattr(row, name) != value}
        if edited & FOLLOWED[Source(row.source)]:
            row.source = Source.ADMINISTRATOR
        _forget_tests(row, edited)
        _save(row, changes)
    found = queries.registry_settings()
    assert found is not None
    return found


def ensure_registry_settings() -> RegistrySettings | None:
    """Fills the registry settings from the environment, or for the built-in registry, where nobody set them.

    Run at every start: a row that no administrator edited follows a changed environment or public address. None when
    neither is configured.
    """
    source, fields = _configured()
    with transaction.atomic():
        row = queries.registry_settings()
        if source is None or (row and row.source == Source.ADMINISTRATOR):
            return row
        if row and row.source == source:
            fields = {name: value for name, value in fields.items() if name in FOLLOWED[source]}
        row = row or RegistrySettings(pk=1)
        row.source = source
        if fields.get("password") == _stored_password():
            del fields["password"]  # it is as old as it was
        _forget_tests(
            row, {name for name, value in fields.items() if name != "password" and getattr(row, name) != value}
        )
        _save(row, fields)
    return queries.registry_settings()


def create_signing_key(*, actor: User | None, name: str, pem: bytes | None = None, password: str = "") -> SigningKey:
    """A key that publishes are signed with from now on, generated or brought as PEM; the one before is retired.

    For an administrator, or nobody: a command on the center's own machine. Raises `Forbidden`, `UnusableSigningKey`.
    """
    if actor is not None:
        queries.require_administrator(actor)
    private = signing.generate() if pem is None else signing.imported(pem, password)
    public = signing.public_pem(private)
    row = SigningKey(
        name=name, private_key=private, public_key=public, fingerprint=signing.fingerprint_of(public), active=True
    )
    try:
        row.clean_fields()
    except ValidationError as exc:
        raise UnusableSigningKey(f"name: {exc.messages[0]}", field="name") from exc
    with transaction.atomic():
        _refuse_known(row)
        SigningKey.objects.filter(active=True).update(active=False)
        row.save(force_insert=True)
    return row


def use_signing_key(*, actor: User | None, pk: int, active: bool) -> SigningKey:
    """Signs with this key from now on and with no other, or no longer. Raises `Forbidden`, `NotFound`."""
    if actor is not None:
        queries.require_administrator(actor)
    found = queries.signing_key_for(pk)
    with transaction.atomic():
        if active:
            SigningKey.objects.filter(active=True).exclude(pk=pk).update(active=False)
        SigningKey.objects.filter(pk=pk).update(active=active)
    found.active = active
    return found


def _refuse_known(row: SigningKey) -> None:
    for known in queries.signing_keys():
        if known.name == row.name:
            raise UnusableSigningKey(
                gettext("There is a signing key %(name)s already: give another name.") % {"name": row.name},
                field="name",
            )
        if known.fingerprint == row.fingerprint:
            raise UnusableSigningKey(
                gettext("This key is here already, as %(name)s: activate it instead.") % {"name": known.name}
            )


def check_certificate(text: str) -> None:
    """Refuses with `UnusableRegistry` what is neither empty nor certificates in PEM format."""
    try:
        Transport(text)
    except RegistryFault as exc:
        raise UnusableRegistry(exc.message, field="ca_certificate") from exc


def _configured() -> tuple[RegistrySettings.Source | None, dict[str, Any]]:
    if settings.OCI_REGISTRY:
        return Source.ENVIRONMENT, {
            "registry": settings.OCI_REGISTRY,
            "repository": settings.OCI_REPOSITORY,
            "email": settings.OCI_EMAIL,
            "username": settings.OCI_USERNAME,
            "password": settings.OCI_PASSWORD,
            "plain_http": settings.OCI_PLAIN_HTTP,
            "proxy": settings.OCI_PROXY,
            "enabled": settings.OCI_ENABLED,
        }
    if settings.REGISTRY_ENABLED:
        public = urlsplit(settings.PUBLIC_URL)
        return Source.BUILT_IN, {
            "registry": public.netloc,
            "repository": "opscenter",
            "username": settings.REGISTRY_USERNAME,
            "password": settings.REGISTRY_PASSWORD,
            "plain_http": public.scheme == "http",
        }
    return None, {}


def _stored_password() -> str | None:
    """What is stored; None when there is no row, or it cannot be decrypted any more."""
    try:
        return RegistrySettings.objects.filter(pk=1).values_list("password", flat=True).first()
    except UnreadableSecret:
        return None


def _forget_tests(row: RegistrySettings, edited: Set[str]) -> None:
    """What was found out of one registry is not true of another."""
    if edited & {"registry", "repository", "plain_http", "proxy"}:
        row.plan, row.checks, row.checked_at = {}, [], None


def _refuse_without_engine(publish: Publish, registry: RegistrySettings) -> None:
    """Also a setting that cannot be read is better told now than by the worker."""
    if queries.engine_copy(publish, registry) is None and publish.packaging == Publish.Packaging.IMAGE:
        raise UnusableEngineImage(
            gettext(
                "An image of engine and pipeline needs an engine image: set ENGINE_IMAGE or the engine images "
                'in the admin console, or publish with packaging "artifact".'
            )
        )


def _save(row: RegistrySettings, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        setattr(row, name, value)
    if "password" in fields:
        row.password_saved_at = timezone.now() if fields["password"] else None
    try:
        row.clean_fields(exclude=["password"])
    except ValidationError as exc:
        name, messages = next(iter(exc.message_dict.items()))
        raise UnusableRegistry(f"{name}: {messages[0]}", field=name) from exc
    check_certificate(row.ca_certificate)
    row.save()


def ready_models(version: PipelineVersion) -> list[ModelVersion]:
    """The models of a version, all of them ready to be served. Raises `ModelsNotReady`."""
    try:
        models = catalog.model_versions_of(version)
    except KeyError as exc:
        raise ModelsNotReady(
            gettext("%(version)s names a model version that is gone: make a new version.") % {"version": version}
        ) from exc
    if not models:
        raise ModelsNotReady(
            gettext("%(version)s has no model: add a model step to the pipeline, which makes a new version.")
            % {"version": version}
        )
    for model in models:
        if model.status != ModelVersion.Status.READY:
            raise ModelsNotReady(_unpublishable(model), model_version=model.pk)
    return models


def _unpublishable(model: ModelVersion) -> str:
    told = {"model": model.model.name, "reason": model.error, "status": model.status}
    if model.error:
        return gettext("The model %(model)s cannot be published: %(reason)s") % told
    return gettext("The model %(model)s cannot be published: its status is %(status)s") % told


def _replaceable(actor: User, pk: int) -> Publish:
    found = queries.publish_for(actor, pk, Role.COLLABORATOR)
    if found.status != Publish.Status.PUBLISHED:
        raise NotPublished(
            gettext("Publish %(pk)s is %(status)s; only a Published one can be replaced.")
            % {"pk": pk, "status": found.status}
        )
    return found


def _compared(version: PipelineVersion, replaced: list[Publish]) -> list[Compared]:
    interfaces = queries.interfaces_of([version, *(publish.pipeline_version for publish in replaced)])
    new = interfaces[version.pk]
    return [
        Compared(publish, schema_changes.compare(interfaces[publish.pipeline_version_id], new)) for publish in replaced
    ]


def _require_unbroken(version: PipelineVersion, replaced: list[Publish]) -> None:
    differences = [
        {"publish": found.publish.pk, **dataclasses.asdict(difference), "change": str(difference.change)}
        for found in _compared(version, replaced)
        for difference in found.comparison.differences
        if difference.change is schema_changes.Change.BREAKING
    ]
    if differences:
        raise BreakingChange(
            gettext(
                "This would break callers of what it replaces: %(difference)s Send allow_breaking if that is "
                "meant, and change the requests to match."
            )
            % {"difference": differences[0]["text"]},
            differences=differences,
        )


def _enqueue(publish_id: int) -> None:
    """After the commit. A broker that is down fails nobody: the message is only a hint, beat finds the row."""
    transaction.on_commit(partial(tasks.publish_version.delay, publish_id), robust=True)
