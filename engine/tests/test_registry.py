"""Pulling from registries: logins, faults, and what never leaves for another host."""

import hashlib
import os

import pytest

from engine.tests.fakes.registry import FakeRegistry
from opsengine import registry as client
from opsengine import store as content
from opsengine import transport
from opsengine.errors import RegistryError, RegistryUnavailable
from opsengine.locations import parse_reference
from opsengine.registry import RegistryClient
from opsengine.settings import RegistrySettings

DATA = os.urandom(3 * 2**20)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transport, "pause", lambda *_, **__: 0.0)


def pull(registry, store, data=DATA, **login):
    digest = registry.put(data)
    reference = parse_reference(f"{registry.host}/ml/pipelines/p:1")
    RegistryClient(registry.host, RegistrySettings(**login)).pull_blob(reference, digest, len(data), store)
    return store.read(digest)


def credentials(registry):
    return {"username": registry.user[0], "password": registry.user[1], "address": registry.host}


@pytest.mark.parametrize("auth", [None, "basic", "bearer"])
def test_pulls_with_each_kind_of_login(registry, store, auth):
    registry.auth = auth
    assert pull(registry, store, **credentials(registry)) == DATA


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_refused_login_says_which_registry_and_what_to_check(registry, auth):
    registry.auth = auth
    reference = parse_reference(f"{registry.host}/ml/pipelines/p:1")
    wrong = RegistrySettings(address=registry.host, username="me", password="top-secret")
    with pytest.raises(RegistryError, match="check OCI_USERNAME and OCI_PASSWORD") as caught:
        RegistryClient(registry.host, wrong).login(reference)
    assert registry.host in str(caught.value)
    assert "top-secret" not in str(caught.value)
    assert len(registry.requests) <= 4


def test_missing_login_says_what_to_set(registry):
    registry.auth = "basic"
    with pytest.raises(RegistryError, match="set OCI_REGISTRY, OCI_USERNAME and OCI_PASSWORD"):
        RegistryClient(registry.host, RegistrySettings()).login(parse_reference(f"{registry.host}/ml/p:1"))


def test_login_is_only_for_the_registry_it_was_given_for(registry, store):
    registry.auth = "basic"
    given = {**credentials(registry), "address": "other.example.com"}
    with pytest.raises(RegistryError, match=f"is for OCI_REGISTRY=other.example.com, set that to {registry.host}"):
        pull(registry, store, **given)
    assert not any("Authorization" in headers for _, _, headers in registry.requests)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (RegistrySettings(), "No registry login is set: pulling without"),
        (RegistrySettings("https://GHCR.io", "me", "pw"), "Login Succeeded"),
        (RegistrySettings("r.io", "me", "pw"), "The registry login is for r.io, not for ghcr.io: pulling without"),
    ],
)
def test_account_of_the_start_says_what_the_login_is_for(settings, said):
    assert RegistryClient("ghcr.io", settings).credentials == said


def test_unknown_pipeline_says_so(registry):
    reference = parse_reference(f"{registry.host}/ml/pipelines/none:1")
    with pytest.raises(RegistryError, match=r"has no .*/ml/pipelines/none:1: check PIPELINE_URL"):
        RegistryClient(registry.host, RegistrySettings()).manifest(reference)


def test_pipeline_without_one_of_its_files_says_so(registry, store):
    reference, digest = parse_reference(f"{registry.host}/ml/pipelines/p:1"), f"sha256:{'0' * 64}"
    with pytest.raises(RegistryError, match=f"without its file {digest}: publish the pipeline again"):
        RegistryClient(registry.host, RegistrySettings()).pull_blob(reference, digest, 10, store)


def test_passing_faults_are_tried_again(registry, store):
    registry.statuses = [503, 429, 500]
    assert pull(registry, store) == DATA


def test_lasting_fault_is_unavailable(registry, store):
    registry.statuses = [503] * 50
    with pytest.raises(RegistryUnavailable, match="answered 503"):
        pull(registry, store)


def test_registry_out_of_reach_is_unavailable(registry, store):
    registry.stop()
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        pull(registry, store)


def test_broken_transfer_goes_on_where_it_stopped(registry, store):
    registry.cut_after = [2**20, 2**20]
    assert pull(registry, store) == DATA
    ranges = [headers.get("Range") for _, path, headers in registry.requests if "/blobs/" in path]
    assert ranges == [None, f"bytes={2**20}-", f"bytes={2**21}-"]


def test_transfer_goes_on_after_a_new_start(registry, store, tmp_path):
    registry.cut_after = [1_500_000] + [0] * 10
    with pytest.raises(RegistryUnavailable):
        pull(registry, store)
    registry.cut_after, registry.requests = [], []
    assert pull(registry, content.ContentStore(tmp_path / "store")) == DATA
    begun = int(registry.requests[0][2]["Range"].removeprefix("bytes=").rstrip("-"))
    assert 1_000_000 < begun <= 1_500_000


def test_damaged_part_on_disk_is_fetched_anew(registry, store, tmp_path):
    name = hashlib.sha256(DATA).hexdigest()
    (tmp_path / "store" / "partial" / name).write_bytes(b"garbage" * 1000)
    assert pull(registry, store) == DATA


def test_wrong_content_is_refused_and_not_kept(registry, store):
    digest = registry.put(DATA)
    registry.tampered.add(digest)
    with pytest.raises(RegistryError, match="something else"):
        pull(registry, store)
    assert not store.has(digest)


def test_longer_content_than_announced_is_refused(registry, store):
    digest = registry.put(DATA)
    reference = parse_reference(f"{registry.host}/ml/p:1")
    with pytest.raises(RegistryError, match="something else"):
        RegistryClient(registry.host, RegistrySettings()).pull_blob(reference, digest, 1000, store)


def test_wrong_manifest_for_a_digest_is_refused(registry):
    digest = registry.push("ml/p", "1", {"layers": []})
    registry.tampered.add(digest)
    with pytest.raises(RegistryError, match="another manifest"):
        RegistryClient(registry.host, RegistrySettings()).manifest(parse_reference(f"{registry.host}/ml/p@{digest}"))


def test_login_is_never_sent_to_where_a_registry_redirects(registry, store):
    elsewhere = FakeRegistry()
    elsewhere.put(DATA)
    registry.auth, registry.blob_host = "basic", elsewhere
    try:
        assert pull(registry, store, **credentials(registry)) == DATA
        assert [path for _, path, _ in elsewhere.requests]
        assert not any("Authorization" in headers for _, _, headers in elsewhere.requests)
    finally:
        elsewhere.stop()


def test_not_enough_disk_is_said_before_pulling(registry, store, monkeypatch):
    monkeypatch.setattr(content.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10 * 2**20}))
    with pytest.raises(RegistryError, match="make room"):
        pull(registry, store)
    assert registry.requests == []


@pytest.mark.parametrize(
    ("address", "plain", "host", "base"),
    [
        (None, False, "ghcr.io", "https://ghcr.io"),
        (None, False, "localhost:5000", "http://localhost:5000"),
        (None, False, "127.0.0.1:5000", "http://127.0.0.1:5000"),
        (None, False, "[::1]:5000", "http://[::1]:5000"),
        (None, True, "registry.lan", "http://registry.lan"),
        ("http://registry.lan:5000", False, "registry.lan:5000", "http://registry.lan:5000"),
        ("https://localhost:5000", True, "localhost:5000", "https://localhost:5000"),
        ("https://other.example.com", False, "localhost:5000", "http://localhost:5000"),
    ],
)
def test_scheme_of_a_registry(address, plain, host, base):
    assert client.base_url(host, RegistrySettings(address=address, plain_http=plain)) == base


def test_references():
    read = parse_reference("ghcr.io/wallaroolabs/doc-samples/pipelines/p:3b49fba8-94d8-4fca-aecc-c75257fd16c6")
    assert (read.host, read.repository, read.tag) == (
        "ghcr.io",
        "wallaroolabs/doc-samples/pipelines/p",
        "3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    )
    assert parse_reference("oci://localhost:5000/a/b").host == "localhost:5000"
    assert str(parse_reference("pipelines/p:1", "registry.lan")) == "registry.lan/pipelines/p:1"
    digest = "sha256:" + "a" * 64
    assert parse_reference(f"r.io/p:1@{digest}").wanted == digest
    for wrong in ["", "r.io", "r.io/UPPER:1", "r.io/p@sha256:short"]:
        with pytest.raises(RegistryError):
            parse_reference(wrong)


def test_store_keeps_only_what_is_named(store):
    kept, dropped = store.write(b"kept"), store.write(b"dropped")
    store.keep_only([kept])
    assert store.has(kept) and not store.has(dropped)
    with pytest.raises(RegistryError):
        store.path("sha256:../../etc/passwd")
