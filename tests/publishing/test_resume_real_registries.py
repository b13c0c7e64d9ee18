"""Uploads that broke off, gone on with by another client: the built-in registry, and CNCF distribution."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from publishing.oci import blobs
from publishing.oci.client import Client, Registry, Retries
from publishing.oci.content import Blob, of_bytes
from publishing.oci.plan import Plan
from publishing.oci.sessions import Sessions
from tests.publishing.conftest import RealRegistry
from tests.registry.test_e2e_clients import ACCOUNT, Server

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
CONTENT = os.urandom(6 * MIB)


class Died(Exception):
    """As a SIGKILL would: nothing is tidied up, the connection just ends."""


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    server = Server(Path(tmp_path_factory.mktemp("built-in")))
    server.start()
    yield RealRegistry(server.host, *ACCOUNT.split(":"), server.data)
    server.kill()


def client_of(registry: RealRegistry, stored: str = "") -> Client:
    return Client(
        Registry(registry.host, registry.username, registry.password, plain_http=True),
        retries=Retries(first=0.05, most=0.2),
        plan=Plan(most_body=MIB, chunk_bytes=2 * MIB),
        sessions=Sessions.of(registry.host, stored),
    )


def died_after(registry: RealRegistry, repository: str, blob: Blob, size: int) -> str:
    """Pushes until so many bytes were read; what the session store knew then."""
    counted = 0

    def count(more: int) -> None:
        nonlocal counted
        counted += more
        if counted > size:
            raise Died

    with client_of(registry) as client:
        with pytest.raises(Died):
            blobs.push(client, repository, blob, count)
        return client.sessions.stored(registry.host)


def resumed(registry: RealRegistry, repository: str, blob: Blob, stored: str) -> int:
    """Pushes with what was kept; answers how many bytes had to be sent."""
    counted: list[int] = []
    read: list[int] = []
    plain = blob.open

    class Counted:
        def __init__(self) -> None:
            self.source = plain()
            self.read_at = self.source.read
            self.seek, self.close = self.source.seek, self.source.close

        def read(self, size: int = -1, /) -> bytes:
            piece = self.read_at(size)
            read.append(len(piece))
            return piece

    watched = Blob(blob.digest, blob.size, blob.media_type, blob.title, Counted)
    with client_of(registry, stored) as client:
        blobs.push(client, repository, watched, counted.append)
        assert client.sessions.stored(registry.host) == ""
        assert b"".join(blobs.download(client, repository, blob.digest)) == CONTENT
    assert sum(counted) == blob.size
    return sum(read)


def test_the_built_in_registry_goes_on_within_a_chunk(built_in: RealRegistry):
    blob = of_bytes(CONTENT, "application/octet-stream", "model.onnx")
    stored = died_after(built_in, "opscenter/a", blob, 3 * MIB)
    assert resumed(built_in, "opscenter/a", blob, stored) <= 4 * MIB, "a chunk of 2 MiB at least was there already"


def test_distribution_gives_a_broken_session_up_and_the_blob_begins_anew(real_registry: RealRegistry):
    blob = of_bytes(CONTENT, "application/octet-stream", "model.onnx")
    stored = died_after(real_registry, "ml/a", blob, 3 * MIB)
    assert stored
    assert resumed(real_registry, "ml/a", blob, stored) == blob.size


def test_distribution_goes_on_between_chunks(real_registry: RealRegistry):
    blob = of_bytes(CONTENT, "application/octet-stream", "model.onnx")
    seen: list[str] = []

    def die_at_rest(more: int) -> None:
        """At the first read of the third chunk, of which nothing was sent."""
        if client.sessions.stored(real_registry.host) not in seen:
            seen.append(client.sessions.stored(real_registry.host))
        if len(seen) == 3:
            raise Died

    with client_of(real_registry) as client, pytest.raises(Died):
        blobs.push(client, "ml/b", blob, die_at_rest)
    assert resumed(real_registry, "ml/b", blob, seen[-1]) == 2 * MIB, "the two chunks that were whole are there"
