"""Sending blobs and manifests: what travels, what does not, and what survives a fault."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from publishing.oci import blobs, manifests, packages
from publishing.oci.blobs import Blob
from publishing.oci.client import Client, Retries
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package
from tests.fakes.oci import FakeRegistry


@pytest.fixture
def package(make_blob: Callable[..., Blob]) -> Package:
    parts = (make_blob(b"{}", "config"), make_blob(b"a" * 100_000, "a.onnx"), make_blob(b"b" * 50_000, "b.onnx"))
    content = json.dumps(
        {"schemaVersion": 2, "config": parts[0].descriptor(), "layers": [part.descriptor() for part in parts[1:]]}
    ).encode()
    return Package("ml/pipelines/p", "v1", Manifest(content, manifests.IMAGE), parts)


def test_a_package_arrives_whole(fake: FakeRegistry, connect: Callable[..., Client], package: Package):
    counted: list[int] = []
    packages.push(connect(fake), package, counted.append)
    assert set(fake.blobs["ml/pipelines/p"]) == {part.digest for part in package.blobs}
    assert fake.manifests[("ml/pipelines/p", "v1")] == (package.manifest.content, manifests.IMAGE)
    assert sum(counted) == package.size == 150_002
    assert fake.seen[-1].method == "PUT" and "/manifests/" in fake.seen[-1].path


def test_what_is_there_is_not_sent_again(fake: FakeRegistry, connect: Callable[..., Client], package: Package):
    packages.push(connect(fake), package, lambda more: None)
    fake.seen.clear()
    counted: list[int] = []
    packages.push(connect(fake), package, counted.append)
    assert {seen.method for seen in fake.seen} == {"HEAD"}
    assert sum(counted) == package.size


def test_a_blob_named_twice_is_sent_once(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    blobs.push_all(connect(fake), "ml/a", [make_blob(), make_blob()], lambda more: None)
    assert len(fake.calls("PUT")) == 1


def test_a_blob_of_another_repository_is_mounted_without_bytes(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    blob = make_blob()
    fake.put_blob("ml/old", b"weights")
    blobs.push_all(connect(fake), "ml/new", [blob], lambda more: None, {blob.digest: "ml/old"})
    assert fake.blob_bytes() == 0
    assert blob.digest in fake.blobs["ml/new"]


@pytest.mark.parametrize("refusal", [202, 403, 405])
def test_a_refused_mount_becomes_an_upload(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob], refusal: int
):
    blob = make_blob()
    fake.mounts = False
    if refusal != 202:
        fake.fail("POST", "/uploads/", status=refusal)
    blobs.push(connect(fake), "ml/new", blob, lambda more: None, "ml/old")
    assert fake.blobs["ml/new"] == {blob.digest: b"weights"}
    assert len(fake.calls("POST")) == (1 if refusal == 202 else 2)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/blobs/"), ("POST", "/uploads/"), ("PUT", "/uploads/"), ("PUT", "/manifests/")]
)
def test_a_fault_that_passes_is_borne(
    fake: FakeRegistry, connect: Callable[..., Client], package: Package, status: int, method: str, path: str
):
    fake.fail(method, path, status=status, times=2)
    counted: list[int] = []
    packages.push(connect(fake), package, counted.append)
    assert ("ml/pipelines/p", "v1") in fake.manifests
    assert sum(counted) == package.size


def test_a_connection_dropped_in_the_middle_of_a_blob_is_borne_and_counted_once(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    fake.fail("PUT", "/uploads/", drop_after=200_000, times=2)
    counted: list[int] = []
    blobs.push(connect(fake), "ml/a", make_blob(b"x" * 3_000_000), counted.append)
    assert len(fake.calls("POST")) == 3, "a broken upload begins a new session: nothing is known of the old one"
    assert sum(counted) == 3_000_000
    assert min(counted) < 0


def test_retry_after_is_waited_for(fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]):
    slept: list[float] = []
    fake.fail("HEAD", "/blobs/", status=429, headers={"Retry-After": "7"})
    blobs.push(connect(fake, sleep=slept.append), "ml/a", make_blob(), lambda more: None)
    assert len(slept) == 1 and 7 <= slept[0] < 8


def test_a_pause_that_is_too_long_is_told_not_waited_for(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    fake.fail("HEAD", "/blobs/", status=429, headers={"Retry-After": "3600"}, times=9)
    with pytest.raises(Unavailable, match=r"asked for a pause .* come back in 3600 s"):
        blobs.push(connect(fake, sleep=lambda seconds: pytest.fail("waited")), "ml/a", make_blob(), lambda more: None)


def test_a_fault_that_stays_ends_with_its_reason(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    body = b'{"errors":[{"code":"UNAVAILABLE","message":"storage is read-only"}]}'
    fake.fail("POST", "/uploads/", status=503, body=body, times=99)
    with pytest.raises(
        Unavailable,
        match=r"failed at the write of model.onnx \(503 UNAVAILABLE: storage is read-only\); gave up after 4",
    ):
        blobs.push(connect(fake), "ml/a", make_blob(), lambda more: None)
    assert len(fake.calls("POST")) == 4


def test_pauses_grow_and_are_bounded() -> None:
    retries = Retries(first=1, most=8)
    pauses = [retries.pause(failures, None) for failures in range(1, 8)]
    assert all(0.5 * min(8, 2**n) <= pause <= min(8, 2**n) for n, pause in enumerate(pauses))


@pytest.mark.parametrize("where", ["POST", "PUT"])
def test_no_other_host_is_shown_who_we_are(connect: Callable[..., Client], make_blob: Callable[..., Blob], where: str):
    with FakeRegistry(auth="basic") as fake, FakeRegistry() as store:
        store.uploads["elsewhere"] = "ml/a"
        target = f"http://{store.host}/v2/ml/a/blobs/uploads/elsewhere?_state=a%2Bb"
        client = connect(fake)
        client.log_in("ml/a")
        blob = make_blob()
        if where == "POST":
            fake.fail("POST", "/uploads/", status=202, headers={"Location": target})
        else:
            fake.fail("PUT", "/uploads/", status=307, headers={"Location": f"{target}&digest={blob.digest}"})
        blobs.push(client, "ml/a", blob, lambda more: None)
        assert store.blobs["ml/a"] == {blob.digest: b"weights"}
        assert [seen.authorization for seen in store.seen] == [""]


def test_a_download_redirected_elsewhere_shows_no_login_and_is_verified(connect: Callable[..., Client]):
    with FakeRegistry(auth="basic") as fake, FakeRegistry() as store:
        digest = store.put_blob("ml/a", b"weights")
        fake.fail("GET", "/blobs/", status=307, headers={"Location": f"http://{store.host}/v2/ml/a/blobs/{digest}"})
        client = connect(fake)
        client.log_in("ml/a")
        assert b"".join(blobs.download(client, "ml/a", digest)) == b"weights"
        assert [seen.authorization for seen in store.seen] == [""]


def test_a_download_of_other_bytes_is_refused(fake: FakeRegistry, connect: Callable[..., Client]):
    digest = fake.put_blob("ml/a", b"weights")
    fake.blobs["ml/a"][digest] = b"weighty"
    with pytest.raises(RegistryFault, match="sent other bytes than those of sha256:"):
        list(blobs.download(connect(fake), "ml/a", digest))


def test_a_manifest_that_is_not_its_digest_is_refused(fake: FakeRegistry, connect: Callable[..., Client]):
    digest = manifests.digest_of(b"{}")
    fake.manifests[("ml/a", digest)] = b'{"x":1}', manifests.IMAGE
    with pytest.raises(RegistryFault, match="another manifest than sha256:"):
        manifests.get(connect(fake), "ml/a", digest)


def test_a_manifest_comes_back_byte_for_byte(fake: FakeRegistry, connect: Callable[..., Client], package: Package):
    client = connect(fake)
    packages.push(client, package, lambda more: None)
    assert manifests.get(client, "ml/pipelines/p", "v1") == package.manifest
    assert manifests.head(client, "ml/pipelines/p", package.manifest.digest) == package.manifest.digest
    assert manifests.head(client, "ml/pipelines/p", "absent") is None


def test_a_redirect_that_goes_round_is_refused(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.fail("GET", "/manifests/", status=302, headers={"Location": "/v2/ml/a/manifests/v1"}, times=99)
    with pytest.raises(RegistryFault, match="redirects without end"):
        manifests.get(connect(fake), "ml/a", "v1")


def test_an_answer_without_end_is_not_read(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.manifests[("ml/a", "v1")] = b" " * (manifests.MOST_BYTES + 1), manifests.IMAGE
    with pytest.raises(RegistryFault, match="with more than 4194304 bytes"):
        manifests.get(connect(fake), "ml/a", "v1")


def test_the_first_failure_stops_the_other_blobs(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    body = b'{"errors":[{"code":"DENIED","message":"no"}]}'
    fake.fail("POST", "/uploads/", status=403, body=body, times=1)
    many = [make_blob(b"part %d" % number) for number in range(60)]
    with pytest.raises(RegistryFault, match="403 DENIED: no"):
        blobs.push_all(connect(fake), "ml/a", many, lambda more: None)
    assert len(fake.calls("PUT")) < 30


def test_progress_may_stop_a_push(fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]):
    class Stop(Exception):
        pass

    def stop(more: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        blobs.push_all(connect(fake), "ml/a", [make_blob(b"x" * 10_000_000)], stop)
    assert not fake.blobs


def test_a_stored_file_that_is_gone_or_short_is_named(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob], tmp_path: Path
):
    path = tmp_path / "model"
    blob = make_blob(b"x" * 1000)
    gone = Blob(blob.digest, 1000, blob.media_type, "model.onnx", lambda: path.open("rb"))
    with pytest.raises(RegistryFault, match=r"stored file of model.onnx cannot be read \(No such file"):
        blobs.push(connect(fake), "ml/a", gone, lambda more: None)
    path.write_bytes(b"x" * 999)
    with pytest.raises(RegistryFault, match="has 999 bytes, not 1000: upload it again"):
        blobs.push(connect(fake), "ml/a", gone, lambda more: None)


def test_blobs_are_sent_a_few_at_a_time(
    fake: FakeRegistry, connect: Callable[..., Client], make_blob: Callable[..., Blob]
):
    fake.gate = threading.Event()
    many = [make_blob(b"part %d" % number) for number in range(12)]
    pushing = threading.Thread(target=blobs.push_all, args=(connect(fake), "ml/a", many, lambda more: None))
    pushing.start()
    assert fake.storing.wait(10)
    fake.gate.wait(0.3)
    at_once = len([seen for seen in fake.calls("PUT") if not seen.status])
    fake.gate.set()
    pushing.join(20)
    assert 1 < at_once <= blobs.AT_ONCE
    assert len(fake.blobs["ml/a"]) == 12
