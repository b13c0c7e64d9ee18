"""Chunked uploads: when they are chosen, how they go on after a fault, and what they cost on the wire."""

import os
from collections.abc import Callable

import pytest

from publishing.oci import blobs, uploads
from publishing.oci.blobs import Blob
from publishing.oci.client import Client
from publishing.oci.faults import Cancelled, RegistryFault, Unavailable
from publishing.oci.plan import GHCR_PATCH, Plan
from publishing.oci.sessions import Sessions
from publishing.oci.uploads import Target
from tests.fakes.oci import FakeRegistry

MIB = 1024 * 1024
CONTENT = os.urandom(5 * MIB + 123)
Connect = Callable[..., Client]


@pytest.fixture
def chunked(fake: FakeRegistry, connect: Connect) -> Client:
    client = connect(fake)
    client.plan = Plan(most_body=MIB, chunk_bytes=MIB)
    return client


@pytest.fixture
def blob(make_blob: Callable[..., Blob]) -> Blob:
    return make_blob(CONTENT)


def pushed(client: Client, blob: Blob) -> int:
    """What was counted while a blob was pushed."""
    counted: list[int] = []
    blobs.push(client, "ml/a", blob, counted.append)
    return sum(counted)


def test_a_plan_with_a_limit_sends_larger_blobs_in_chunks(fake: FakeRegistry, chunked: Client, blob: Blob):
    assert pushed(chunked, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    assert [seen.body_bytes for seen in fake.calls("PATCH")] == [MIB] * 5 + [123]
    assert fake.blob_bytes() == blob.size


def test_a_blob_within_the_limit_goes_whole(fake: FakeRegistry, chunked: Client, make_blob: Callable[..., Blob]):
    pushed(chunked, make_blob(b"x" * MIB))
    assert fake.calls("PATCH") == [] and len(fake.calls("PUT")) == 1


def test_a_refused_whole_is_sent_in_chunks_and_the_next_blob_at_once(
    fake: FakeRegistry, connect: Connect, blob: Blob, make_blob: Callable[..., Blob]
):
    fake.most_put = fake.most_patch = MIB
    client = connect(fake)
    assert pushed(client, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    refused = len([seen for seen in fake.seen if seen.status == 413])
    pushed(client, make_blob(CONTENT[::-1]))
    assert len([seen for seen in fake.seen if seen.status == 413]) == refused
    assert fake.blob_bytes() <= 1.05 * 2 * blob.size


def test_a_registry_that_takes_nothing_large_is_told_of(fake: FakeRegistry, connect: Connect, blob: Blob):
    fake.most_put = fake.most_patch = 1000
    with pytest.raises(RegistryFault, match="too large for the registry or a proxy"):
        pushed(connect(fake), blob)


def test_a_chunk_is_not_smaller_than_the_registry_asks(fake: FakeRegistry, chunked: Client, blob: Blob):
    fake.chunk_minimum = 2 * MIB
    pushed(chunked, blob)
    assert [seen.body_bytes for seen in fake.calls("PATCH")] == [MIB, 2 * MIB, 2 * MIB, 123]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_fault_that_passes_costs_one_chunk(fake: FakeRegistry, chunked: Client, blob: Blob, status: int):
    patched: list[int] = []

    def count(more: int) -> None:
        patched.append(more)
        if sum(patched) == 3 * MIB and not fake.faults:
            fake.fail("PATCH", "/uploads/", status=status)

    blobs.push(chunked, "ml/a", blob, count)
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    assert sum(patched) == blob.size
    assert fake.blob_bytes() <= blob.size + MIB
    assert len(fake.calls("POST")) == 1


def test_a_connection_dropped_within_a_chunk_goes_on_where_the_registry_is(
    fake: FakeRegistry, chunked: Client, blob: Blob
):
    fake.fail("PATCH", "/uploads/", drop_after=300_000)
    assert pushed(chunked, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    assert len(fake.calls("GET", "/uploads/")) == 1 and len(fake.calls("POST")) == 1


def test_an_answer_that_is_lost_after_the_bytes_came_is_not_sent_again(
    fake: FakeRegistry, chunked: Client, blob: Blob, monkeypatch: pytest.MonkeyPatch
):
    handler = fake.server.RequestHandlerClass
    patch, lost = handler.patch, []  # type: ignore[attr-defined]

    def swallow(self: object, name: str, upload: str) -> None:
        if len(fake.parts.get(upload, b"")) == 2 * MIB and not lost:
            lost.append(upload)
            monkeypatch.setattr(self, "answer", lambda *args, **more: None, raising=False)
            self.close_connection = True  # type: ignore[attr-defined]
        patch(self, name, upload)

    monkeypatch.setattr(handler, "patch", swallow)
    assert pushed(chunked, blob) == blob.size
    assert lost and fake.blobs["ml/a"][blob.digest] == CONTENT
    assert fake.blob_bytes() == blob.size


def test_a_lost_session_begins_again(fake: FakeRegistry, chunked: Client, blob: Blob):
    fake.fail("PATCH", "/uploads/", status=404)
    fake.resumes = False
    assert pushed(chunked, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    assert len(fake.calls("POST")) == 2


def test_a_registry_that_loses_every_session_is_given_up(fake: FakeRegistry, chunked: Client, blob: Blob):
    fake.resumes = False
    fake.fail("PATCH", "/uploads/", status=404, times=100)
    with pytest.raises((RegistryFault, Unavailable)):
        pushed(chunked, blob)
    assert len(fake.calls("PATCH")) <= 10


def test_a_fault_that_stays_is_given_up_after_the_usual_tries(fake: FakeRegistry, chunked: Client, blob: Blob):
    fake.fail("PATCH", "/uploads/", status=503, times=100)
    counted: list[int] = []
    with pytest.raises(Unavailable, match="gave up after 4 tries"):
        blobs.push(chunked, "ml/a", blob, counted.append)
    assert len(fake.calls("PATCH")) == 4 and sum(counted) == 0


def test_a_token_that_lapses_between_chunks_is_renewed(connect: Connect, blob: Blob):
    with FakeRegistry(auth="bearer") as fake:
        client = connect(fake)
        client.plan = Plan(most_body=MIB, chunk_bytes=MIB)
        counted: list[int] = []
        revoked: list[bool] = []

        def count(more: int) -> None:
            counted.append(more)
            if sum(counted) == 2 * MIB and not revoked:
                revoked.append(True)
                fake.revoke_tokens()

        blobs.push(client, "ml/a", blob, count)
        assert fake.blobs["ml/a"][blob.digest] == CONTENT


def test_a_stop_is_heard_within_a_chunk(fake: FakeRegistry, chunked: Client, blob: Blob):
    counted: list[int] = []

    def count(more: int) -> None:
        counted.append(more)
        if sum(counted) > MIB:
            raise Cancelled

    with pytest.raises(Cancelled):
        blobs.push(chunked, "ml/a", blob, count)
    assert sum(counted) < 2 * MIB


def test_ghcr_gets_small_patches_whatever_was_stored():
    assert Plan.of("ghcr.io").chunk_bytes == GHCR_PATCH
    assert Plan.of("ghcr.io", {"chunk_bytes": 64 * MIB}).chunk_bytes == GHCR_PATCH
    assert Plan.of("r.example", {"chunk_bytes": 64 * MIB, "unknown": 1}).chunk_bytes == 64 * MIB


def test_a_plan_comes_back_as_it_was_stored():
    plan = Plan(most_body=5, chunk_bytes=MIB, chunked=True, mounts=False, media_types={"helm": True})
    assert Plan.of("r.example", plan.stored()) == plan


def left_by_another(fake: FakeRegistry, client: Client, blob: Blob, kept: int) -> str:
    """A session of a process that died: so many bytes are there, and nobody remembers its client."""
    location = uploads.begin(Target(client, "ml/a", blob.title))
    fake.parts[next(iter(fake.uploads))] = bytearray(CONTENT[:kept])
    return location


@pytest.mark.parametrize("kept", [0, 1, 2 * MIB, 3 * MIB + 7, len(CONTENT)])
def test_a_session_that_another_process_left_is_gone_on_with(
    fake: FakeRegistry, connect: Connect, chunked: Client, blob: Blob, kept: int
):
    location = left_by_another(fake, connect(fake), blob, kept)
    fake.seen.clear()
    chunked.sessions.begun("ml/a", blob.digest, location)
    assert pushed(chunked, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT
    if kept != 1:  # `0-0` may be no byte or one: what is refused then begins anew
        assert fake.blob_bytes() == blob.size - kept
        assert fake.calls("POST") == [] and len(fake.calls("GET", "/uploads/")) == 1
    assert chunked.sessions.stored(fake.host) == ""


@pytest.mark.parametrize("status", [400, 404, 405, 410, 416])
def test_a_session_that_is_gone_is_begun_anew(fake: FakeRegistry, chunked: Client, blob: Blob, status: int):
    chunked.sessions.begun("ml/a", blob.digest, "/v2/ml/a/blobs/uploads/gone?_state=a%2Bb")
    fake.fail("GET", "/uploads/gone", status=status)
    assert pushed(chunked, blob) == blob.size
    assert fake.blobs["ml/a"][blob.digest] == CONTENT and fake.blob_bytes() == blob.size


def test_a_session_that_does_not_say_how_far_it_is_is_begun_anew(fake: FakeRegistry, chunked: Client, blob: Blob):
    chunked.sessions.begun("ml/a", blob.digest, "/v2/ml/a/blobs/uploads/mute?_state=a%2Bb")
    fake.fail("GET", "/uploads/mute", status=204)
    assert pushed(chunked, blob) == blob.size and fake.blobs["ml/a"][blob.digest] == CONTENT


def test_a_session_that_holds_other_bytes_is_begun_anew(
    fake: FakeRegistry, connect: Connect, chunked: Client, blob: Blob
):
    location = left_by_another(fake, connect(fake), blob, MIB)
    fake.parts[next(iter(fake.uploads))] = bytearray(MIB)
    chunked.sessions.begun("ml/a", blob.digest, location)
    assert pushed(chunked, blob) == blob.size and fake.blobs["ml/a"][blob.digest] == CONTENT


def test_a_session_whose_address_nobody_serves_any_more_is_forgotten(fake: FakeRegistry, chunked: Client, blob: Blob):
    with FakeRegistry() as gone:
        pass
    chunked.sessions.begun("ml/a", blob.digest, f"http://{gone.host}/v2/ml/a/blobs/uploads/x")
    with pytest.raises(Unavailable):
        pushed(chunked, blob)
    assert pushed(chunked, blob) == blob.size, "the next try begins anew"


def test_where_a_session_is_can_be_kept_while_it_goes_on(fake: FakeRegistry, chunked: Client, blob: Blob):
    seen: list[str] = []

    def count(more: int) -> None:
        if not seen or seen[-1] != chunked.sessions.stored(fake.host):
            seen.append(chunked.sessions.stored(fake.host))

    blobs.push(chunked, "ml/a", blob, count)
    assert Sessions.of(fake.host, seen[-1]).location("ml/a", blob.digest)
    assert Sessions.of("other.example", seen[-1]).stored("other.example") == "", "another registry's are of no use"


def test_an_address_that_is_too_long_is_not_remembered_nor_the_one_before():
    sessions = Sessions()
    sessions.begun("ml/a", "sha256:1", "/v2/short")
    sessions.begun("ml/a", "sha256:1", "/v2/" + "x" * 5000)
    assert sessions.stored("h") == ""


@pytest.mark.parametrize("stored", ["", "no json", "[]", '{"host": "h"}', '{"host": "h", "open": 1}'])
def test_nonsense_is_no_session(stored: str):
    assert Sessions.of("h", stored).stored("h") == ""


def test_a_refused_account_keeps_the_session_and_a_refused_session_does_not(
    fake: FakeRegistry, chunked: Client, blob: Blob
):
    for status, is_kept in ((403, True), (400, False)):
        fake.fail("PATCH", "/uploads/", status=status)
        with pytest.raises(RegistryFault):
            pushed(chunked, blob)
        assert bool(chunked.sessions.location("ml/a", blob.digest)) is is_kept
