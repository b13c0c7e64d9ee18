"""Looks engine images up in their registries, as a publish would."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from django.conf import settings

from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import connections, engine_images, transfer
from publishing.models import RegistrySettings
from publishing.oci import images, references
from publishing.oci.client import Client, Retries
from publishing.oci.faults import RegistryFault, Unavailable

RETRIES = Retries(tries=2, patience=5.0)  # somebody waits for the answer


@dataclass(frozen=True)
class Found:
    """An image of the setting; `fault` says why it cannot be taken along, in one sentence, and is empty when it can."""

    name: str
    image: str
    digest: str = ""
    platforms: tuple[str, ...] = ()
    fault: str = ""


def check() -> list[Found]:
    """Every image that is in force: whether its registry has it, under which digest, for which platforms.

    Takes seconds. Raises `UnusableEngineImage` when the setting cannot be read.
    """
    return [_look_up(name, image) for name, image in engine_images.current().named.items()]


def _look_up(name: str, image: str) -> Found:
    try:
        source = references.parse(image)
        with _source_at(source.host) as client:
            tree = images.read(client, source.repository, source.wanted, tuple(settings.ENGINE_PLATFORMS))
    except (RegistryFault, Unavailable) as exc:
        return Found(name, image, fault=transfer.source_words(exc))
    except (DomainError, UnreadableSecret) as exc:
        return Found(name, image, fault=str(exc))
    platforms = tuple(found.platform for found in tree.images if found.is_runnable and found.platform)
    return Found(name, image, tree.top.digest, platforms)


@contextmanager
def _source_at(host: str) -> Iterator[Client]:
    """A client with the login that a publish would read the image with."""
    row = RegistrySettings.objects.filter(pk=1).first()  # with the password
    with ExitStack() as stack:
        if row is None or not row.registry:
            yield stack.enter_context(connections.to_source(host, retries=RETRIES, sleep=time.sleep))
            return
        target = stack.enter_context(connections.to_registry(row, retries=RETRIES, sleep=time.sleep))
        source = connections.to_engine_source(host, target, retries=RETRIES, sleep=time.sleep)
        yield source if source is target else stack.enter_context(source)
