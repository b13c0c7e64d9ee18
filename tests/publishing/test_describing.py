"""What is attached to a publish: with and without a key, and where the registry will not have it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from catalog.models import ModelVersion
from publishing import jobs, operations, signing
from publishing.describing import Describing
from publishing.models import Publish
from publishing.oci import referrers
from publishing.oci.client import Client
from publishing.oci.faults import RegistryFault
from publishing.oci.manifests import digest_of
from publishing.oci.referrers import Subject
from tests.fakes.oci import FakeRegistry

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
DESCRIBED = {"bill-of-materials", "provenance"}


def arrived(publish: Publish) -> Publish:
    assert jobs.publish(publish.pk)
    publish.refresh_from_db()
    return publish


@pytest.fixture
def engine(to_fake: FakeRegistry, connect: Callable[..., Client], make_image: Callable[..., str], settings: Any) -> str:
    """An engine image for two platforms, which publishes copy; its digest."""
    settings.ENGINE_IMAGE = f"{to_fake.host}/acme/opsengine:1.2"
    return make_image(connect(to_fake), "acme/opsengine", "1.2", ("linux/amd64", "linux/arm64"))


def attached(fake: FakeRegistry, digest: str) -> dict[str, Any]:
    """Documents about a manifest by their kind."""
    found = {}
    for (name, reference), (content, _) in fake.manifests.items():
        manifest = json.loads(content)
        if ":" in reference and manifest.get("subject", {}).get("digest") == digest:
            document = fake.blobs[name][manifest["layers"][0]["digest"]]
            found[manifest["annotations"]["io.opscenter.attachment"]] = json.loads(document)
    return found


def test_without_a_key_the_pipeline_is_described_and_nothing_is_signed(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    publish = arrived(make_publish())
    assert set(attached(to_fake, publish.pipeline_digest)) == {"bill-of-materials", "provenance"}
    assert attached(to_fake, publish.chart_digest) == {}
    assert publish.signing_key is None
    assert not [tag for _, tag in to_fake.manifests if tag.endswith(".sig")]


def test_the_bill_of_materials_names_every_model_and_the_engine(
    to_fake: FakeRegistry, engine: str, make_publish: Callable[..., Publish]
):
    publish = arrived(make_publish())
    found = attached(to_fake, publish.pipeline_digest)["bill-of-materials"]
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert found["metadata"]["component"]["hashes"][0]["content"] == publish.pipeline_digest[7:]
    model = ModelVersion.objects.get()
    kinds = {part["type"]: part for part in found["components"]}
    assert kinds["machine-learning-model"]["hashes"] == [{"alg": "SHA-256", "content": model.sha256}]
    assert kinds["container"]["name"] == f"{to_fake.host}/ml/engines/opsengine:1.2"
    assert kinds["container"]["hashes"] == [{"alg": "SHA-256", "content": engine[7:]}]
    assert {part["bom-ref"] for part in found["components"]} == set(found["dependencies"][0]["dependsOn"])


def test_the_provenance_says_who_when_what_and_which_center(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish], settings: Any
):
    publish = arrived(make_publish())
    found = attached(to_fake, publish.pipeline_digest)["provenance"]
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"][0]["digest"] == {"sha256": publish.pipeline_digest[7:]}
    build, run = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert build["externalParameters"]["version"] == str(publish.pipeline_version.uuid)
    assert build["internalParameters"] == {"requestedBy": str(publish.created_by.public_id)}
    assert build["resolvedDependencies"][0]["digest"] == {"sha256": ModelVersion.objects.get().sha256}
    assert run["builder"] == {"id": settings.PUBLIC_URL, "version": {"opscenter": settings.CENTER_VERSION}}
    assert run["metadata"]["invocationId"].endswith(f"/publishes/{publish.pk}")
    assert publish.created_by.email not in json.dumps(found)


@pytest.mark.parametrize("served", [False, True])
def test_a_second_publish_adds_nothing(to_fake: FakeRegistry, make_publish: Callable[..., Publish], served: bool):
    to_fake.has_referrers = served
    operations.create_signing_key(actor=None, name="site")
    first = arrived(make_publish())
    before = set(to_fake.manifests)
    arrived(make_publish(first.pipeline_version))
    assert set(to_fake.manifests) == before
    kinds = set(attached(to_fake, first.pipeline_digest))
    assert kinds == {
        *("bill-of-materials", "provenance", "signature"),
        *("signed-bill-of-materials", "signed-provenance"),
    }
    assert set(attached(to_fake, first.chart_digest)) == {"provenance", "signature", "signed-provenance"}
    assert any(tag.startswith("sha256-") and not tag.endswith(".sig") for _, tag in to_fake.manifests) is not served


def test_every_signature_is_of_the_active_key(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    key = operations.create_signing_key(actor=None, name="site")
    publish = arrived(make_publish())
    assert publish.signing_key == key
    for digest in (publish.pipeline_digest, publish.chart_digest):
        bundle = json.dumps(attached(to_fake, digest)["signature"]).encode()
        statement = signing.verified_statement(bundle, key.public_key)
        assert statement["subject"][0]["digest"] == {"sha256": digest[7:]}


def test_the_engines_copy_and_the_image_with_the_pipeline_are_signed(
    to_fake: FakeRegistry, engine: str, make_publish: Callable[..., Publish]
):
    key = operations.create_signing_key(actor=None, name="site")
    publish = arrived(make_publish(packaging=Publish.Packaging.IMAGE))
    assert publish.engine_digest == engine
    for repository, digest, told in (
        ("ml/engines/opsengine", engine, set()),
        ("ml/images/houseprice", publish.image_digest, DESCRIBED | {f"signed-{kind}" for kind in DESCRIBED}),
    ):
        found = attached(to_fake, digest)
        assert set(found) == {"signature"} | told
        statement = signing.verified_statement(json.dumps(found["signature"]).encode(), key.public_key)
        assert statement["subject"] == [{"name": f"{to_fake.host}/{repository}", "digest": {"sha256": digest[7:]}}]
        assert (repository, signing.legacy_tag(digest)) in to_fake.manifests


def test_the_one_image_is_described_without_a_key_too(
    to_fake: FakeRegistry, engine: str, make_publish: Callable[..., Publish]
):
    publish = arrived(make_publish(packaging=Publish.Packaging.IMAGE))
    found = attached(to_fake, publish.image_digest)
    assert set(found) == DESCRIBED
    whole = found["bill-of-materials"]["metadata"]["component"]
    assert (whole["type"], whole["hashes"][0]["content"]) == ("container", publish.image_digest[7:])
    kinds = {part["type"]: part["hashes"][0]["content"] for part in found["bill-of-materials"]["components"]}
    assert kinds == {"machine-learning-model": ModelVersion.objects.get().sha256, "container": engine[7:]}
    assert found["provenance"]["subject"][0]["digest"] == {"sha256": publish.image_digest[7:]}


def test_an_engine_image_whose_tag_moved_meanwhile_is_not_signed_in_its_place(
    to_fake: FakeRegistry,
    engine: str,
    make_publish: Callable[..., Publish],
    connect: Callable[..., Client],
    make_image: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
):
    operations.create_signing_key(actor=None, name="site")
    run = Describing.run

    def moved(*args: Any, **named: Any) -> None:
        make_image(connect(to_fake), "ml/engines/opsengine", "1.2")
        run(*args, **named)

    monkeypatch.setattr(Describing, "run", moved)
    arrived(make_publish())
    signed = [tag for name, tag in to_fake.manifests if name == "ml/engines/opsengine" and tag.endswith(".sig")]
    assert signed == [signing.legacy_tag(engine)]


def test_a_retired_key_signs_no_more(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    key = operations.create_signing_key(actor=None, name="site")
    operations.use_signing_key(actor=None, pk=key.pk, active=False)
    assert arrived(make_publish()).signing_key is None


def test_a_registry_that_refuses_descriptions_is_noted_and_the_publish_arrives(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    to_fake.fail("PUT", "/manifests/sha256", status=400, times=99, body=b'{"errors":[{"code":"MANIFEST_INVALID"}]}')
    publish = arrived(make_publish())
    assert publish.status == Publish.Status.PUBLISHED
    assert any("does not take the provenance" in note for note in publish.notes)


def test_a_signature_that_no_layout_takes_fails_the_publish(
    to_fake: FakeRegistry, make_publish: Callable[..., Publish]
):
    operations.create_signing_key(actor=None, name="site")
    to_fake.fail("PUT", r"\.sig$", status=403, times=99)
    publish = make_publish()
    assert jobs.publish(publish.pk) is False
    publish.refresh_from_db()
    assert publish.status == Publish.Status.ERROR and ".sig" in publish.error


def test_a_signature_in_the_old_layout_only_is_noted(to_fake: FakeRegistry, make_publish: Callable[..., Publish]):
    operations.create_signing_key(actor=None, name="site")
    to_fake.fail("PUT", "/manifests/sha256:", status=400, times=99)
    publish = arrived(make_publish())
    assert any("in the .sig tag only" in note for note in publish.notes)


def test_pages_of_referrers_are_followed(fake: FakeRegistry, connect: Callable[..., Client]):
    fake.has_referrers = True
    subject = Subject("ml/x", f"sha256:{'a' * 64}", 1)
    for number in range(3):
        content = json.dumps({"config": {}, "layers": [], "subject": subject.descriptor(), "n": number}).encode()
        fake.manifests["ml/x", digest_of(content)] = content, "application/vnd.oci.image.manifest.v1+json"
    found = referrers.listed(connect(fake), subject)
    assert (len(found.found), found.served) == (3, True)


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"manifests": 1}'])
def test_a_list_that_is_no_index_is_told(fake: FakeRegistry, connect: Callable[..., Client], body: bytes):
    fake.fail("GET", "/referrers/", status=200, body=body)
    with pytest.raises(RegistryFault, match="no OCI index"):
        referrers.listed(connect(fake), Subject("ml/x", f"sha256:{'a' * 64}", 1))


def test_the_version_in_the_settings_is_that_of_the_project(settings: Any, pytestconfig: pytest.Config):
    project = (pytestconfig.rootpath / "pyproject.toml").read_text()
    assert f'\nversion = "{settings.CENTER_VERSION}"\n' in project
