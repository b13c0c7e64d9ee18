"""A publish in a file: the same bytes every time, the same digests elsewhere, and nothing that was tampered with."""

import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from catalog.models import ModelVersion
from publishing import exports, jobs, operations, signing
from publishing.errors import UnusableExport
from publishing.models import Publish
from publishing.oci import layout, manifests
from publishing.oci.faults import RegistryFault
from publishing.oci.layout import Entry
from tests.fakes.oci import FakeRegistry

ENGINE = "engines/opsengine"


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    """Another registry, which has the referrers API."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def published(to_fake: FakeRegistry, make_publish: Callable[..., Publish], settings: Any) -> Publish:
    """A signed publish with an engine image of two platforms in its registry."""
    settings.ENGINE_IMAGE = f"{to_fake.host}/ml/{ENGINE}:0.1.0"
    to_fake.has_referrers = False
    put_image(to_fake)
    operations.create_signing_key(actor=None, name="site")
    made = make_publish()
    assert jobs.publish(made.pk), made.error
    made.refresh_from_db()
    return made


def put_image(registry: FakeRegistry) -> str:
    repository, children = f"ml/{ENGINE}", []
    for arch in ("amd64", "arm64"):
        config = registry.put_blob(
            repository, json.dumps({"architecture": arch, "os": "linux", "rootfs": {"diff_ids": []}}).encode()
        )
        layer = registry.put_blob(repository, f"files for {arch}".encode())
        size = {digest: len(registry.blobs[repository][digest]) for digest in (config, layer)}
        content = {
            "schemaVersion": 2,
            "mediaType": manifests.IMAGE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size[config]},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size[layer]}],
        }
        packed = json.dumps(content).encode()
        digest = manifests.digest_of(packed)
        registry.manifests[repository, digest] = packed, manifests.IMAGE
        platform = {"architecture": arch, "os": "linux"}
        children.append({"mediaType": manifests.IMAGE, "digest": digest, "size": len(packed), "platform": platform})
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": children}).encode()
    for reference in ("0.1.0", manifests.digest_of(index)):
        registry.manifests[repository, reference] = index, kind
    return manifests.digest_of(index)


def held(registry: FakeRegistry, base: str) -> set[tuple[str, str]]:
    """Repositories below a base with their tags and digests, without the lists that a client keeps for a registry."""
    return {
        (name.removeprefix(base), reference)
        for (name, reference), (content, _) in registry.manifests.items()
        if not (b'"artifactType"' in content and b'"manifests"' in content)
    }


def test_it_arrives_elsewhere_with_the_same_digests(
    published: Publish,
    to_fake: FakeRegistry,
    elsewhere: FakeRegistry,
    to_registry: Callable[..., Any],
    tmp_path: Path,
):
    exported = exports.export_publish(published.pk, tmp_path / "p.tar")
    assert exported.names == ["pipeline", "chart", "engine"]
    to_registry(elsewhere.host, repository="site/models")
    found = exports.import_publish(tmp_path / "p.tar")
    assert found.known == published.pk
    assert held(elsewhere, "site/models/") == held(to_fake, "ml/")
    for name, blobs in to_fake.blobs.items():
        assert elsewhere.blobs[name.replace("ml/", "site/models/", 1)].keys() == blobs.keys()


def test_the_image_that_holds_the_pipeline_comes_along(
    published: Publish,
    make_publish: Callable[..., Publish],
    elsewhere: FakeRegistry,
    to_registry: Callable[..., Any],
    tmp_path: Path,
):
    made = make_publish(published.pipeline_version, packaging=Publish.Packaging.IMAGE)
    assert jobs.publish(made.pk), made.error
    made.refresh_from_db()
    exported = exports.export_publish(made.pk, tmp_path / "p.tar")
    assert exported.names == ["pipeline", "chart", "engine", "image"]
    to_registry(elsewhere.host, repository="site/models")
    found = exports.import_publish(tmp_path / "p.tar")
    kept = elsewhere.manifests["site/models/images/houseprice", str(made.pipeline_version.uuid)][0]
    assert manifests.digest_of(kept) == made.image_digest
    assert ("site/models/images/houseprice", signing.legacy_tag(made.image_digest)) in elsewhere.manifests
    (alone,) = (command.text for command in found.commands if command.title == "docker run, one image")
    assert alone.endswith(f"{elsewhere.host}/site/models/images/houseprice:{made.pipeline_version.uuid}")


def test_the_same_publish_is_the_same_file(published: Publish, tmp_path: Path):
    for name in ("a.tar", "b.tar"):
        exports.export_publish(published.pk, tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        entries = tar.getmembers()
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    names = [entry.name for entry in entries]
    assert names[:2] == ["oci-layout", "index.json"] and names[2:] == sorted(names[2:])


def test_importing_twice_sends_nothing_twice(
    published: Publish, elsewhere: FakeRegistry, to_registry: Callable[..., Any], tmp_path: Path
):
    exports.export_publish(published.pk, tmp_path / "p.tar")
    to_registry(elsewhere.host)
    exports.import_publish(tmp_path / "p.tar")
    writes = len(elsewhere.calls("PUT")) + len(elsewhere.calls("POST"))
    exports.import_publish(tmp_path / "p.tar")
    assert len(elsewhere.calls("PUT")) + len(elsewhere.calls("POST")) == writes


def test_an_import_writes_nothing_to_the_database_and_prints_the_commands(
    published: Publish, elsewhere: FakeRegistry, to_registry: Callable[..., Any], tmp_path: Path
):
    call_command("export_publish", str(published.pk), str(tmp_path / "p.tar"), stdout=StringIO())
    to_registry(elsewhere.host)
    before = Publish.objects.values_list().get()
    printed = StringIO()
    call_command("import_publish", str(tmp_path / "p.tar"), stdout=printed)
    assert Publish.objects.values_list().get() == before
    text = printed.getvalue()
    assert f"pipeline: {elsewhere.host}/ml/pipelines/houseprice:" in text and published.pipeline_digest in text
    assert "# docker run" in text and f"PIPELINE_URL={elsewhere.host}/ml/pipelines/" in text
    assert f"--set-literal pipelineUrl={elsewhere.host}/ml/pipelines/" in text, "the chart names the first registry"


def test_what_this_center_never_published_is_imported_too(
    published: Publish, elsewhere: FakeRegistry, to_registry: Callable[..., Any], tmp_path: Path
):
    exports.export_publish(published.pk, tmp_path / "p.tar")
    to_registry(elsewhere.host)
    Publish.objects.all().delete()
    assert exports.import_publish(tmp_path / "p.tar").known is None


@pytest.mark.parametrize("status", ["PendingPublish", "Error"])
def test_only_what_is_published_is_exported(make_publish: Callable[..., Publish], tmp_path: Path, status: str):
    waiting = make_publish(status=status)
    with pytest.raises(CommandError, match="only a Published one"):
        call_command("export_publish", str(waiting.pk), str(tmp_path / "p.tar"))
    assert not list(tmp_path.glob("*.tar*"))


def test_a_publish_in_another_registry_is_refused(
    published: Publish, elsewhere: FakeRegistry, to_registry: Callable[..., Any], tmp_path: Path
):
    to_registry(elsewhere.host)
    with pytest.raises(UnusableExport, match="point them there, or publish again"):
        exports.export_publish(published.pk, tmp_path / "p.tar")


def test_a_registry_that_lost_a_blob_leaves_no_half_file(published: Publish, to_fake: FakeRegistry, tmp_path: Path):
    model = ModelVersion.objects.get()
    del to_fake.blobs["ml/pipelines/houseprice"][f"sha256:{model.sha256}"]
    with pytest.raises(RegistryFault):
        exports.export_publish(published.pk, tmp_path / "p.tar")
    assert not list(tmp_path.glob("*.tar*"))


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The file with other content."""
    with tarfile.open(path) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}  # type: ignore[union-attr]
    change(files)
    target = path.with_name("changed.tar")
    with tarfile.open(target, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target


def index_with(**fields: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        index = json.loads(files["index.json"])
        index["manifests"][0].setdefault("annotations", {}).update(fields.pop("annotations", {}))
        index["manifests"][0].update(fields)
        files["index.json"] = json.dumps(index).encode()

    return change


def without_about(files: dict[str, bytes]) -> None:
    index = json.loads(files["index.json"])
    del index["annotations"]
    files["index.json"] = json.dumps(index).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (index_with(annotations={"io.opscenter.repository": "../../other"}), "a place that no registry has"),
        (index_with(annotations={"io.opscenter.tag": "a/b"}), "a place that no registry has"),
        (index_with(digest=f"sha256:{'0' * 64}"), "does not have it"),
        (without_about, "not one that export_publish wrote"),
        (lambda files: files.pop("index.json"), "no oci-layout and index.json"),
        (lambda files: files.update({"index.json": b"[]"}), "not a JSON object"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_sent(
    published: Publish,
    elsewhere: FakeRegistry,
    to_registry: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], None],
    words: str,
):
    exports.export_publish(published.pk, tmp_path / "p.tar")
    to_registry(elsewhere.host)
    with pytest.raises(UnusableExport, match=words):
        exports.import_publish(changed(tmp_path / "p.tar", change))
    assert not elsewhere.manifests


def test_a_changed_manifest_is_noticed(
    published: Publish, elsewhere: FakeRegistry, to_registry: Callable[..., Any], tmp_path: Path
):
    exports.export_publish(published.pk, tmp_path / "p.tar")
    name = f"blobs/sha256/{published.pipeline_digest[7:]}"
    to_registry(elsewhere.host)
    with pytest.raises(UnusableExport, match="changed or damaged"):
        exports.import_publish(
            changed(tmp_path / "p.tar", lambda files: files.update({name: files[name].replace(b"v1", b"v2")}))
        )


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 1000, b"\x1f\x8b\x08" + bytes(600)])
def test_what_is_no_tar_is_refused(db: None, tmp_path: Path, content: bytes):
    (tmp_path / "p.tar").write_bytes(content)
    with pytest.raises(UnusableExport, match=r"not an uncompressed tar|no OCI layout"):
        exports.import_publish(tmp_path / "p.tar")


def test_memory_does_not_grow_with_a_blob(tmp_path: Path):
    size, piece = 64 * 1024 * 1024, bytes(256 * 1024)
    pieces = size // len(piece)
    digest = "sha256:3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"  # 64 MiB of zeros
    tracemalloc.start()
    try:
        with (tmp_path / "big.tar").open("wb") as file:
            layout.write(file, {"manifests": []}, {digest: Entry(digest, size, lambda: iter([piece] * pieces))})
        with layout.Layout(tmp_path / "big.tar") as found, found.open(digest) as blob:
            assert sum(len(part) for part in iter(lambda: blob.read(1024 * 1024), b"")) == size
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
