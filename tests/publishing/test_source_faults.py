"""An engine image whose source breaks off, cheats or changes: nothing wrong arrives, and the source is named."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from publishing import jobs
from publishing.models import Publish, RegistrySettings
from publishing.oci import images, manifests
from publishing.oci.client import Client
from publishing.oci.content import Blob, of_bytes
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.images import ImageTree
from publishing.oci.manifests import Manifest
from publishing.oci.plan import Plan
from tests.fakes.oci import FakeRegistry

KIB = 1024
LAYER = os.urandom(700 * KIB)  # more than two pieces
REPOSITORY = "acme/opsengine"
Connect = Callable[..., Client]


@pytest.fixture
def source(connect: Connect, make_image: Callable[..., str], settings: Any) -> Iterator[FakeRegistry]:
    """Has an engine image of one platform, whose layer is large."""
    with FakeRegistry() as registry:
        layer = of_bytes(LAYER, "application/vnd.oci.image.layer.v1.tar", "layer")
        config = of_bytes(
            b'{"architecture":"amd64","os":"linux"}', "application/vnd.oci.image.config.v1+json", "config"
        )
        content = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": manifests.IMAGE,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
            }
        ).encode()
        registry.put_blob(REPOSITORY, LAYER)
        registry.put_blob(REPOSITORY, config.open().read())
        manifests.put(connect(registry), REPOSITORY, "1", Manifest(content, manifests.IMAGE))
        registry.layer = layer  # type: ignore[attr-defined]
        settings.ENGINE_IMAGE = f"{registry.host}/{REPOSITORY}:1"
        yield registry


@pytest.fixture
def tree(source: FakeRegistry, connect: Connect) -> ImageTree:
    return images.read(connect(source), REPOSITORY, "1")


@pytest.fixture
def layer(source: FakeRegistry) -> Blob:
    return source.layer  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("cut", [0, 1, 300 * KIB, 700 * KIB - 1])
def test_a_source_that_breaks_off_is_read_again_and_counted_once(
    fake: FakeRegistry, source: FakeRegistry, connect: Connect, tree: ImageTree, layer: Blob, cut: int
):
    source.fail("GET", layer.digest, cut=cut, times=2)
    counted: list[int] = []
    images.copy(connect(fake), "ml/engines/e", "1", tree, counted.append)
    assert fake.blobs["ml/engines/e"][layer.digest] == LAYER
    assert sum(counted) == tree.size
    assert len(source.calls("GET", layer.digest)) == 3


def test_a_source_that_always_breaks_off_is_named_and_nothing_of_it_arrives(
    to_fake: FakeRegistry, source: FakeRegistry, layer: Blob, make_publish: Callable[..., Publish]
):
    source.fail("GET", layer.digest, cut=300 * KIB, times=99)
    publish = make_publish()
    assert not jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert publish.status == Publish.Status.ERROR
    assert publish.error.startswith(f"{source.host} broke the connection at the read of {layer.digest[:19]}")
    assert "gave up after 6 tries" in publish.error and to_fake.host not in publish.error
    assert layer.digest not in to_fake.blobs.get("ml/engines/opsengine", {})
    assert ("ml/engines/opsengine", "1") not in to_fake.manifests, "a tag never names what is not whole"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (LAYER[: 500 * KIB], f"sent {500 * KIB} of the {700 * KIB} bytes of"),
        (b"", f"sent 0 of the {700 * KIB} bytes of"),
        (LAYER[:-1] + bytes([LAYER[-1] ^ 1]), "sent other bytes than those of"),
        (bytes([LAYER[0] ^ 1]) + LAYER[1:], "sent other bytes than those of"),
        (bytes(900 * KIB), "sent other bytes than those of"),
    ],
)
def test_a_source_whose_blob_is_not_its_digest_is_named_at_once(
    fake: FakeRegistry,
    source: FakeRegistry,
    connect: Connect,
    tree: ImageTree,
    layer: Blob,
    body: bytes,
    words: str,
):
    """Its answer is whole by HTTP: only size and digest tell that it is short or changed."""
    source.fail("GET", layer.digest, status=200, body=body, times=99)
    counted: list[int] = []
    with pytest.raises(RegistryFault, match=f"^{source.host} {words} {layer.digest[:19]} in {REPOSITORY}"):
        images.copy(connect(fake), "ml/engines/e", "1", tree, counted.append)
    assert len(source.calls("GET", layer.digest)) == 1, "asking again would give the same"
    assert layer.digest not in fake.blobs.get("ml/engines/e", {})


def test_a_target_that_takes_chunks_gets_the_rest_from_where_the_source_broke_off(
    fake: FakeRegistry, source: FakeRegistry, connect: Connect, tree: ImageTree, layer: Blob
):
    client = connect(fake)
    client.plan = Plan(most_body=100 * KIB, chunk_bytes=100 * KIB)
    source.fail("GET", layer.digest, cut=50 * KIB)
    images.copy(client, "ml/engines/e", "1", tree, lambda more: None)
    assert fake.blobs["ml/engines/e"][layer.digest] == LAYER
    assert fake.blob_bytes() < 1.2 * tree.size


def test_a_source_without_ranges_is_read_from_its_start(
    fake: FakeRegistry, source: FakeRegistry, connect: Connect, tree: ImageTree, layer: Blob
):
    client = connect(fake)
    client.plan = Plan(most_body=400 * KIB, chunk_bytes=400 * KIB)
    source.fail("GET", layer.digest, status=200, body=LAYER, times=99)
    images.copy(client, "ml/engines/e", "1", tree, lambda more: None)
    assert fake.blobs["ml/engines/e"][layer.digest] == LAYER


def test_a_source_without_ranges_that_ends_before_the_offset_is_named(
    fake: FakeRegistry, source: FakeRegistry, connect: Connect, tree: ImageTree, layer: Blob
):
    client = connect(fake)
    client.plan = Plan(most_body=400 * KIB, chunk_bytes=400 * KIB)
    source.fail("GET", layer.digest, times=1, status=200, body=LAYER)
    source.fail("GET", layer.digest, times=99, status=200, body=LAYER[: 100 * KIB])
    with pytest.raises(RegistryFault, match=f"^{source.host} sent {100 * KIB} of the {700 * KIB} bytes"):
        images.copy(client, "ml/engines/e", "1", tree, lambda more: None)


def test_a_source_that_hangs_up_without_an_answer_is_named(
    fake: FakeRegistry, source: FakeRegistry, connect: Connect, tree: ImageTree, layer: Blob
):
    source.fail("GET", layer.digest, drop_after=0, times=99)
    with pytest.raises(Unavailable, match=rf"^{source.host} broke the connection at the read of"):
        images.copy(connect(fake), "ml/engines/e", "1", tree, lambda more: None)


def test_a_source_that_lost_the_blob_is_told_in_its_own_words(
    to_fake: FakeRegistry,
    source: FakeRegistry,
    layer: Blob,
    make_publish: Callable[..., Publish],
    to_registry: Callable[..., RegistrySettings],
):
    source.fail("GET", layer.digest, status=404, body=b'{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}', times=9)
    publish = make_publish()
    assert not jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert f"{source.host} refused the read of {layer.digest[:19]} (404 BLOB_UNKNOWN: gone)" in publish.error
