"""What publishing makes, taken by the engine's own code: golden requests and signatures let through what holds only."""

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.models import ModelVersion, PipelineVersion, User
from engine.tests.fakes import models
from opsengine import evidence
from opsengine import settings as engine_settings
from opsengine.plane import DataPlane
from opsengine.settings import RegistrySettings as EngineRegistry
from opsengine.settings import Settings
from opsengine.updater import Updater, Wanted
from publishing import jobs, operations, signing
from publishing.models import Publish
from publishing.oci.client import Client
from tests.fakes.oci import FakeRegistry

GOLDEN = {"input": [{"tensor": [1.0, 2.0]}, {"tensor": [3.0, 4.0]}], "output": {"y": [[2.0, 4.0], [6.0, 8.0]]}}
WRONG = {**GOLDEN, "output": {"y": [[2.0, 4.0], [6.0, 8.1]]}}
Publishing = Callable[..., Publish]


@dataclass
class Site:
    """An engine's updater and what it serves."""

    updater: Updater
    plane: DataPlane

    def bring(self, wanted: Wanted) -> None:
        self.updater.want(wanted)
        deadline = time.monotonic() + 20
        while self.updater.is_busy:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def serves(self) -> str:
        """The digest."""
        return self.plane.current.digest if self.plane.current else ""

    @property
    def reason(self) -> str:
        return self.updater.failure.message if self.updater.failure else ""


@pytest.fixture
def site(tmp_path: Path, to_fake: FakeRegistry) -> Callable[..., Site]:
    """`site(key, …)`: an engine with nothing in its store, which asks for signatures when it has a key."""
    made: list[Path] = []

    def make(key: str = "", **changes: Any) -> Site:
        folder = tmp_path / f"site-{len(made)}"
        made.append(folder)
        folder.mkdir()
        registry = EngineRegistry(to_fake.host, to_fake.username, to_fake.password, plain_http=True)
        given = Settings("x", registry, persist_dir=folder, **changes)
        if key:
            object.__setattr__(given, "signing_key", evidence.read_key(key))
        plane = DataPlane(lambda _: None, 2**20)
        return Site(Updater(given, plane, folder, lambda: None), plane)

    return make


@pytest.fixture
def publish(
    to_fake: FakeRegistry,
    owner: User,
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    sent: list[Any],
) -> Publishing:
    """A published pipeline that doubles."""

    def make(**fields: Any) -> Publish:
        tensor = {"type": "float32", "shape": [None, 2]}
        model = make_model_version(
            content=models.scale(2.0), inputs=[{"name": "x", **tensor}], outputs=[{"name": "y", **tensor}]
        )
        made = operations.publish(actor=owner, version=make_pipeline_version(model), **fields)
        assert jobs.publish(made.pk)
        made.refresh_from_db()
        return made

    return make


def wanted(made: Publish) -> Wanted:
    return Wanted(made.pipeline_url, made.pipeline_digest)


def test_a_golden_request_that_holds_is_tried_and_served(
    publish: Publishing, site: Callable[..., Site], caplog: pytest.LogCaptureFixture
):
    made, engine = publish(golden=GOLDEN), site()
    with caplog.at_level("INFO"):
        engine.bring(wanted(made))
    assert (engine.serves, engine.reason) == (made.pipeline_digest, "")
    assert "The golden request of the publish gave what it should" in caplog.text


def test_a_golden_request_that_does_not_hold_is_refused_with_what_came(publish: Publishing, site: Callable[..., Site]):
    engine = site()
    engine.bring(wanted(publish(golden=WRONG)))
    assert engine.serves == ""
    assert engine.reason == "The golden request of the publish gave 8.0 in row 1 of 'y' instead of 8.1."


def test_a_tolerance_decides_whether_it_holds(publish: Publishing, site: Callable[..., Site]):
    made, engine = publish(golden={**WRONG, "atol": 0.2}), site()
    engine.bring(wanted(made))
    assert engine.serves == made.pipeline_digest


@pytest.mark.parametrize(("golden", "serves"), [(GOLDEN, True), (WRONG, False)])
def test_the_one_image_tries_it_too(
    publish: Publishing,
    site: Callable[..., Site],
    to_fake: FakeRegistry,
    connect: Callable[..., Client],
    make_image: Callable[..., str],
    settings: Any,
    tmp_path: Path,
    golden: dict[str, Any],
    serves: bool,
):
    make_image(connect(to_fake), "acme/opsengine", "1")
    settings.ENGINE_IMAGE = f"{to_fake.host}/acme/opsengine:1"
    made = publish(golden=golden, packaging="image")
    with tarfile.open(fileobj=io.BytesIO(to_fake.blobs["ml/images/houseprice"][made.image_layer["digest"]])) as layer:
        layer.extractall(tmp_path / "root", filter="data")
    told = engine_settings.read({"PIPELINE_DIR": str(tmp_path / "root/pipeline"), "PERSIST_DIR": str(tmp_path)})
    assert told.pipeline_digest == made.pipeline_digest
    engine = site(pipeline_dir=told.pipeline_dir)
    to_fake.seen.clear()
    engine.bring(Wanted(told.pipeline_url, told.pipeline_digest))
    assert (engine.serves == made.pipeline_digest) is serves, engine.reason
    assert serves or "instead of 8.1" in engine.reason
    assert to_fake.seen == [], "nothing is pulled for it"


def test_without_a_golden_request_it_is_served_untried(publish: Publishing, site: Callable[..., Site]):
    made, engine = publish(), site()
    engine.bring(wanted(made))
    assert engine.serves == made.pipeline_digest


def leave_only(fake: FakeRegistry, layout: str) -> None:
    """The registry as a mirror would have it that brought one layout of signatures alone."""
    bundles = {
        digest
        for (_, digest), (content, _) in fake.manifests.items()
        if ":" in digest and signing.BUNDLE_TYPE.encode() in content and b'"subject"' in content
    }
    for key in list(fake.manifests):
        is_tag = key[1].endswith(".sig")
        is_list = key[1].startswith("sha256-") and not is_tag
        if is_tag if layout == "bundle" else (key[1] in bundles or is_list):
            del fake.manifests[key]


@pytest.mark.parametrize("layout", ["bundle", "tag"])
@pytest.mark.parametrize("has_referrers", [True, False])
def test_a_signed_publish_is_served_where_a_signature_is_required(
    publish: Publishing, site: Callable[..., Site], to_fake: FakeRegistry, layout: str, has_referrers: bool
):
    to_fake.has_referrers = has_referrers
    key = operations.create_signing_key(actor=None, name="site")
    made, engine = publish(), site(key.public_key)
    leave_only(to_fake, layout)
    engine.bring(wanted(made))
    assert (engine.serves, engine.reason) == (made.pipeline_digest, "")


@pytest.mark.parametrize("layout", ["bundle", "tag"])
@pytest.mark.parametrize("has_referrers", [True, False])
def test_a_signature_of_another_key_is_refused_with_the_reason(
    publish: Publishing, site: Callable[..., Site], to_fake: FakeRegistry, layout: str, has_referrers: bool
):
    to_fake.has_referrers = has_referrers
    operations.create_signing_key(actor=None, name="site")
    made = publish()
    leave_only(to_fake, layout)
    engine = site(signing.public_pem(signing.generate()))
    engine.bring(wanted(made))
    assert engine.serves == ""
    assert "is signed, but not with the key in COSIGN_PUBLIC_KEY" in engine.reason


@pytest.mark.parametrize("has_referrers", [True, False])
def test_an_unsigned_publish_is_refused_with_the_reason_and_its_models_are_not_pulled(
    publish: Publishing, site: Callable[..., Site], to_fake: FakeRegistry, has_referrers: bool
):
    to_fake.has_referrers = has_referrers
    made, engine = publish(), site(signing.public_pem(signing.generate()))
    to_fake.seen.clear()
    engine.bring(wanted(made))
    assert engine.serves == ""
    assert engine.reason == f"{made.pipeline_digest} is not signed, and a signature is required: sign the publish."
    assert not to_fake.calls("GET", ModelVersion.objects.get().sha256)


def test_descriptions_signed_by_the_key_are_no_signature(
    publish: Publishing, site: Callable[..., Site], to_fake: FakeRegistry
):
    """Somebody takes the signature away and leaves the signed provenance and bill of materials."""
    key = operations.create_signing_key(actor=None, name="site")
    made, engine = publish(), site(key.public_key)
    for name, (content, _) in list(to_fake.manifests.items()):
        if name[1].endswith(".sig") or b'"io.opscenter.attachment":"signature"' in content:
            del to_fake.manifests[name]
    engine.bring(wanted(made))
    assert engine.serves == "" and "not with the key" in engine.reason
