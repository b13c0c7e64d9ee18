"""The engine image that goes along with a publish, and the image that holds engine and pipeline."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.models import PipelineVersion, User
from publishing import artifact, engine_image, jobs, operations, self_contained
from publishing.errors import UnusableEngineImage
from publishing.models import Publish
from publishing.oci.client import Client
from publishing.oci.content import of_bytes
from publishing.oci.manifests import Manifest
from publishing.oci.packages import Package
from tests.fakes.oci import FakeRegistry

PLATFORMS = ("linux/amd64", "linux/arm64")
Status, Packaging = Publish.Status, Publish.Packaging


@pytest.fixture
def source(connect: Callable[..., Client], make_image: Callable[..., str], settings: Any) -> Any:
    """Another registry, which has the engine image for two platforms."""
    with FakeRegistry(auth="basic", username="reader", password="read") as registry:
        registry.digest = make_image(connect(registry), "acme/opsengine", "1.2", PLATFORMS)  # type: ignore[attr-defined]
        registry.seen.clear()
        settings.ENGINE_IMAGE = f"{registry.host}/acme/opsengine:1.2"
        settings.ENGINE_IMAGE_USERNAME, settings.ENGINE_IMAGE_PASSWORD = "reader", "read"
        yield registry


def arrived(publish: Publish) -> Publish:
    jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert publish.status == Status.PUBLISHED, publish.error
    return publish


def manifest(fake: FakeRegistry, repository: str, reference: str) -> Any:
    return json.loads(fake.manifests[(repository, reference)][0])


def test_it_is_copied_by_digest_with_all_platforms(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]
):
    found = arrived(make_publish())
    assert found.engine_url == f"{to_fake.host}/ml/engines/opsengine:1.2"
    assert found.engine_digest == source.digest and found.notes == []
    for key in ("1.2", source.digest):
        assert to_fake.manifests[("ml/engines/opsengine", key)] == source.manifests[("acme/opsengine", key)]
    assert to_fake.blobs["ml/engines/opsengine"] == source.blobs["acme/opsengine"]
    assert found.bytes_done == found.bytes_total > sum(map(len, source.blobs["acme/opsengine"].values()))


def test_it_is_not_copied_again(to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]):
    first = arrived(make_publish())
    sent = to_fake.blob_bytes()
    arrived(make_publish(first.pipeline_version))
    assert to_fake.blob_bytes() == sent and not source.calls("GET", "/blobs/")[4:]


def test_in_the_same_registry_it_is_mounted(
    to_fake: FakeRegistry,
    connect: Callable[..., Client],
    make_image: Callable[..., str],
    make_publish: Callable[..., Publish],
    settings: Any,
):
    make_image(connect(to_fake), "acme/opsengine", "1.2", PLATFORMS)
    settings.ENGINE_IMAGE = f"{to_fake.host}/acme/opsengine:1.2"
    before = to_fake.blob_bytes()
    arrived(make_publish())
    assert len([call for call in to_fake.calls("POST") if "mount" in call.query and call.status == 201]) == 4
    assert to_fake.blob_bytes() - before < 50_000


def test_asked_for_platforms_alone_make_an_index_of_them(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish], settings: Any
):
    settings.ENGINE_PLATFORMS = ["linux/arm64"]
    found = arrived(make_publish())
    (entry,) = manifest(to_fake, "ml/engines/opsengine", "1.2")["manifests"]
    assert entry["platform"]["architecture"] == "arm64" and found.engine_digest != source.digest


def test_a_platform_that_is_not_there_is_named(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish], settings: Any
):
    settings.ENGINE_PLATFORMS = ["linux/s390x"]
    publish = make_publish()
    assert not jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert "no image for linux/s390x, only for linux/amd64, linux/arm64" in publish.error


def test_a_source_that_refuses_is_named_with_its_settings(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish], settings: Any
):
    settings.ENGINE_IMAGE_PASSWORD = "wrong"
    publish = make_publish()
    assert not jobs.publish(publish.pk)
    publish.refresh_from_db()
    assert publish.error.startswith(f"The engine image {settings.ENGINE_IMAGE} (ENGINE_IMAGE) cannot be read")
    assert "ENGINE_IMAGE_USERNAME" in publish.error and "admin console" not in publish.error


def test_a_source_that_breaks_off_is_read_again(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]
):
    source.fail("GET", "/blobs/", status=503, times=2)
    assert arrived(make_publish()).engine_digest == source.digest


@pytest.mark.parametrize(
    ("setting", "arch", "accel", "image"),
    [
        ("", "x86", "none", ""),
        ("ghcr.io/a/e:1", "arm", "cuda", "ghcr.io/a/e:1"),
        ("x86=a.io/e:1, arm=b.io/e:1", "arm", "none", "b.io/e:1"),
        ('{"x86/cuda": "a.io/gpu:1", "default": "a.io/e:1"}', "x86", "cuda", "a.io/gpu:1"),
        ('{"x86/cuda": "a.io/gpu:1", "default": "a.io/e:1"}', "x86", "none", "a.io/e:1"),
    ],
)
def test_one_is_chosen_by_architecture_and_accelerator(setting: str, arch: str, accel: str, image: str):
    assert engine_image.chosen(setting, arch, accel) == image


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("x86=a.io/e:1", "no engine image for arm"),
        ("{broken", "begins like a JSON object"),
        ('{"x86": 1}', "as JSON is an object"),
        ("x86=", "is one image, or"),
    ],
)
def test_a_setting_that_names_none_is_told(setting: str, says: str):
    with pytest.raises(UnusableEngineImage, match=says):
        engine_image.chosen(setting, "arm", "none")


def test_the_copys_tag_is_never_taken_for_referrers():
    copied = engine_image.copy_of(f"a.io/e@sha256:{'0' * 64}", "ml")
    assert (copied.repository, copied.tag) == ("ml/engines/e", "digest-000000000000")


def test_the_image_holds_the_artifacts_files_and_says_where(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]
):
    found = arrived(make_publish(packaging=Packaging.IMAGE))
    version = str(found.pipeline_version.uuid)
    assert found.image_url == f"{to_fake.host}/ml/images/houseprice:{version}"
    index = manifest(to_fake, "ml/images/houseprice", version)
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    stored = to_fake.blobs["ml/images/houseprice"]
    for entry in index["manifests"]:
        image = manifest(to_fake, "ml/images/houseprice", entry["digest"])
        config = json.loads(stored[image["config"]["digest"]])
        assert (
            config["config"]["Env"] == ["PATH=/bin", "PIPELINE_DIR=/pipeline"] and config["config"]["User"] == "10001"
        )
        assert config["config"]["Entrypoint"] == ["opsengine"]
        layer = image["layers"][-1]
        assert config["rootfs"]["diff_ids"][-1] == layer["digest"] and len(config["rootfs"]["diff_ids"]) == 2
        assert len(config["history"]) == 2
    files = unpacked(stored[layer["digest"]])
    told = to_fake.manifests[("ml/pipelines/houseprice", found.pipeline_digest)][0]
    assert files["pipeline/manifest.json"] == told
    for part in json.loads(told)["layers"]:
        content = files[f"pipeline/{part['annotations'][artifact.FILE_PATH]}"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == part["digest"]
    assert files["models"] == b"-> pipeline/models"


def unpacked(data: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            if entry.isfile():
                file = tar.extractfile(entry)
                assert file is not None
                found[entry.name] = file.read()
            elif entry.issym():
                found[entry.name] = f"-> {entry.linkname}".encode()
            assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
    return found


def test_the_same_version_makes_the_same_image_and_hashes_its_layer_once(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch
):
    first = arrived(make_publish(packaging=Packaging.IMAGE))
    sent = to_fake.blob_bytes()
    monkeypatch.setattr(self_contained.Layer, "digest", lambda *args: pytest.fail("hashed again"))
    second = arrived(make_publish(first.pipeline_version, packaging=Packaging.IMAGE))
    assert second.image_digest == first.image_digest and to_fake.blob_bytes() == sent


def test_its_chart_runs_the_one_image(to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]):
    found = arrived(make_publish(packaging=Packaging.IMAGE))
    told = manifest(to_fake, "ml/charts/houseprice", found.chart_digest)
    archive = to_fake.blobs["ml/charts/houseprice"][told["layers"][0]["digest"]]
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile("houseprice/values.yaml")
        assert file is not None
        values = yaml.safe_load(file.read())
    assert (values["image"], values["pipelineInImage"]) == (found.image_url, True)


def test_what_is_not_done_of_the_configuration_is_told_at_once_and_at_the_end(
    to_fake: FakeRegistry,
    source: Any,
    member: User,
    make_pipeline_version: Callable[..., PipelineVersion],
    sent: list[Any],
):
    config = {"engineAux": {"images": {"step-1": {"image": "reg/side:1"}}}}
    made = operations.publish(actor=member, version=make_pipeline_version(), engine_config=config)
    for found in (made, arrived(made)):
        (note,) = found.notes
        assert "containers of their own for step-1" in note


def test_the_engines_layers_are_mounted_into_the_image(
    to_fake: FakeRegistry, source: Any, make_publish: Callable[..., Publish]
):
    arrived(make_publish(packaging=Packaging.IMAGE))
    mounted = [call for call in to_fake.calls("POST", "ml/images/") if "mount" in call.query and call.status == 201]
    assert len(mounted) == 2  # one layer a platform


def test_without_an_engine_image_it_is_refused_at_once(
    to_fake: FakeRegistry, member: User, make_pipeline_version: Callable[..., PipelineVersion], settings: Any
):
    settings.ENGINE_IMAGE = ""
    with pytest.raises(UnusableEngineImage, match="set ENGINE_IMAGE"):
        operations.publish(actor=member, version=make_pipeline_version(), packaging=Packaging.IMAGE)
    assert not Publish.objects.exists()


def test_the_layer_is_read_from_any_offset_as_from_its_start(tmp_path: Path):
    blobs = tuple(
        of_bytes(content, "", name, {artifact.FILE_PATH: name})
        for name, content in (("pipeline.json", b"{}"), ("models/a/1/a.onnx", b"a" * 1500), ("models/b/1/b", b""))
    )
    layer = self_contained.layer_of(Package("r", "t", Manifest(b"{}", "m"), blobs), artifact.FILE_PATH)
    whole = whole_of(layer, 0)
    assert len(whole) == layer.size and layer.digest(lambda more: None).endswith(hashlib.sha256(whole).hexdigest())
    for offset in (1, 511, 512, 4000, len(whole) - 1, len(whole)):
        assert whole_of(layer, offset) == whole[offset:]


def whole_of(layer: self_contained.Layer, offset: int) -> bytes:
    source, found = layer.open(), b""
    source.seek(offset)
    while piece := source.read(700):
        found += piece
    return found
