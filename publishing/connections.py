"""Clients for the registries of a publish: with whose login, through which proxy, by which plan."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from django.conf import settings

from publishing.models import RegistrySettings
from publishing.oci import docker_config
from publishing.oci.client import Client, Registry, Retries
from publishing.oci.plan import Plan
from publishing.oci.sessions import Sessions

LOOPBACK = ("localhost", "127.", "[::1]")


def registry_of(row: RegistrySettings) -> Registry:
    """The registry of the settings, whose password this decrypts.

    Without a username the login is that of `DOCKER_CONFIG`, where there is one. Raises `RegistryFault`,
    `UnreadableSecret`.
    """
    registry = Registry(
        row.registry, row.username, row.password, row.plain_http, row.ca_certificate, proxy=row.proxy.rstrip("/")
    )
    return registry if row.username else _with_docker_login(registry)


def to_registry(
    row: RegistrySettings, *, retries: Retries, sleep: Callable[[float], object], sessions: Sessions | None = None
) -> Client:
    """A client that pushes as the plan of the settings says, and goes on with these upload sessions."""
    plan = Plan.of(row.registry, row.plan)
    return Client(registry_of(row), retries=retries, sleep=sleep, plan=plan, sessions=sessions)


def to_engine_source(host: str, target: Client, *, retries: Retries, sleep: Callable[[float], object]) -> Client:
    """A client that reads the engine image: `target` itself where it is in the same registry and has no own login."""
    username, password = settings.ENGINE_IMAGE_USERNAME, settings.ENGINE_IMAGE_PASSWORD
    if host == target.registry.host:
        if not username:
            return target
        return Client(replace(target.registry, username=username, password=password), retries=retries, sleep=sleep)
    return to_source(host, retries=retries, sleep=sleep)


def to_source(host: str, *, retries: Retries, sleep: Callable[[float], object]) -> Client:
    """A client that reads the engine image with its own login, or that of `DOCKER_CONFIG`, or none."""
    username, password = settings.ENGINE_IMAGE_USERNAME, settings.ENGINE_IMAGE_PASSWORD
    plain = settings.ENGINE_IMAGE_PLAIN_HTTP or host.startswith(LOOPBACK)
    registry = Registry(host, username, password, plain)
    return Client(registry if username else _with_docker_login(registry), retries=retries, sleep=sleep)


def _with_docker_login(registry: Registry) -> Registry:
    if not settings.DOCKER_CONFIG:
        return registry
    login = docker_config.login_for(registry.host, Path(settings.DOCKER_CONFIG))
    if login is None:
        return registry
    return replace(registry, username=login.username, password=login.password, identity_token=login.identity_token)
