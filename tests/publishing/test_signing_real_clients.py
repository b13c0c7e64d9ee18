"""Signatures and descriptions as clients that are not ours read them: cosign, skopeo and oras, from two registries."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.models import ModelVersion, PipelineVersion
from opsengine import evidence, signatures
from opsengine.errors import SignatureError
from opsengine.locations import parse_reference
from opsengine.registry import RegistryClient
from opsengine.settings import RegistrySettings as EngineRegistry
from publishing import jobs, operations, signing
from publishing.models import Publish, RegistrySettings
from publishing.oci import manifests, referrers
from publishing.oci.client import Client, Registry
from publishing.oci.referrers import Subject
from tests.fakes.kubernetes import FakeCluster
from tests.publishing.conftest import RealRegistry, tool
from tests.registry.test_e2e_clients import ACCOUNT, Server

pytestmark = pytest.mark.e2e

# A key needs no roots of trust, but cosign fetches Sigstore's own before it looks at a bundle: an empty file keeps it
# from the Internet.
KEY = ("--key", "k.pub", "--insecure-ignore-tlog=true", "--trusted-root", "roots.json")


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """The center's own registry behind its web server, which has the referrers API."""
    folder = tmp_path_factory.mktemp("built-in")
    server = Server(folder)
    server.start()
    yield RealRegistry(server.host, *ACCOUNT.split(":"), folder)
    server.kill()


@pytest.fixture(params=["distribution", "built-in"])
def real_registry(request: pytest.FixtureRequest, real_registry: RealRegistry) -> RealRegistry:
    """CNCF distribution, which has no referrers API, and the built-in registry, which has."""
    return real_registry if request.param == "distribution" else request.getfixturevalue("built_in")


@pytest.fixture
def signed(
    real_registry: RealRegistry,
    to_registry: Callable[..., RegistrySettings],
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    make_image: Callable[..., str],
    client: Client,
    settings: Any,
) -> Publish:
    """A published version with its engine, as an image too; signed."""
    make_image(client, "example/opsengine", "0.1.0", ("linux/amd64", "linux/arm64"))
    settings.ENGINE_IMAGE = f"{real_registry.host}/example/opsengine:0.1.0"
    operations.create_signing_key(actor=None, name="site")
    to_registry(real_registry.host, username=real_registry.username, password=real_registry.password)
    made = make_publish(make_pipeline_version(make_model_version(content=os.urandom(100_000))), packaging="image")
    jobs.publish(made.pk)
    made.refresh_from_db()
    assert made.status == Publish.Status.PUBLISHED, made.error
    assert made.notes == []
    return made


@pytest.fixture
def client(real_registry: RealRegistry) -> Client:
    return Client(Registry(real_registry.host, real_registry.username, real_registry.password, plain_http=True))


@pytest.fixture
def cosign(signed: Publish, real_registry: RealRegistry, tmp_path: Path) -> Callable[..., Any]:
    program = tool("cosign")
    login = base64.b64encode(f"{real_registry.username}:{real_registry.password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {real_registry.host: {"auth": login}}}))
    assert signed.signing_key
    (tmp_path / "k.pub").write_text(signed.signing_key.public_key)
    (tmp_path / "roots.json").write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    environment = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path
        )

    return run


@pytest.fixture
def skopeo(real_registry: RealRegistry) -> Callable[..., str]:
    """`skopeo("copy", from, to)` between repositories of the registry."""
    program, login = tool("skopeo"), f"{real_registry.username}:{real_registry.password}"

    def run(verb: str, *words: str) -> str:
        options = ("--src-creds", login, "--dest-creds", login, "--src-tls-verify=false", "--dest-tls-verify=false")
        done = subprocess.run([program, verb, *options, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def references(publish: Publish) -> list[str]:
    """Pipeline, chart, the one image, and the engine's copy."""
    pipeline, image = publish.pipeline_url.rpartition(":")[0], publish.image_url.rpartition(":")[0]
    return [
        f"{pipeline}@{publish.pipeline_digest}",
        f"{publish.chart_url}@{publish.chart_digest}",
        f"{image}@{publish.image_digest}",
        f"{publish.engine_url.rpartition(':')[0]}@{publish.engine_digest}",
    ]


def test_cosign_verifies_pipeline_chart_and_images_by_their_bundles(signed: Publish, cosign: Callable[..., Any]):
    for reference in references(signed):
        done = cosign("verify", *KEY, reference)
        assert done.returncode == 0, done.stderr


def test_cosign_verifies_the_old_layout_where_a_mirror_brought_only_that(
    signed: Publish, cosign: Callable[..., Any], skopeo: Callable[..., str], real_registry: RealRegistry
):
    """skopeo copies tags, not referrers: what arrives is the manifest and its .sig tag."""
    here, there = signed.pipeline_url.rpartition(":")[0], f"{real_registry.host}/mirror"
    skopeo("copy", f"docker://{signed.pipeline_url}", f"docker://{there}:v1")
    tag = signing.legacy_tag(signed.pipeline_digest)
    skopeo("copy", f"docker://{here}:{tag}", f"docker://{there}:{tag}")
    done = cosign("verify", *KEY, f"{there}@{signed.pipeline_digest}")
    assert done.returncode == 0, done.stderr
    claim = json.loads(done.stdout)[0]["critical"]
    assert claim["image"] == {"docker-manifest-digest": signed.pipeline_digest}
    assert claim["identity"] == {"docker-reference": here}


def test_cosign_refuses_another_key(
    signed: Publish, cosign: Callable[..., Any], skopeo: Callable[..., str], real_registry: RealRegistry, tmp_path: Path
):
    (tmp_path / "k.pub").write_text(operations.create_signing_key(actor=None, name="other").public_key)
    done = cosign("verify", *KEY, references(signed)[0])
    assert done.returncode != 0, done.stdout


def test_the_engine_finds_the_signature_and_refuses_another_key(signed: Publish, real_registry: RealRegistry):
    login = EngineRegistry(real_registry.host, real_registry.username, real_registry.password, plain_http=True)
    reference = parse_reference(f"{signed.pipeline_url}@{signed.pipeline_digest}")
    client = RegistryClient(real_registry.host, login)
    assert signed.signing_key
    key = evidence.read_key(signed.signing_key.public_key)
    assert evidence.holds(signatures.find(client, reference, signed.pipeline_digest, key), signed.pipeline_digest, key)
    other = evidence.read_key(signing.public_pem(signing.generate()))
    with pytest.raises(SignatureError, match="not with the key in COSIGN_PUBLIC_KEY"):
        signatures.find(client, reference, signed.pipeline_digest, other)


@pytest.mark.parametrize("kind", ["slsaprovenance1", "cyclonedx"])
def test_cosign_verifies_what_is_said_of_pipeline_and_image(signed: Publish, cosign: Callable[..., Any], kind: str):
    pipeline, _, image, _ = references(signed)
    for reference in (pipeline, image):
        done = cosign("verify-attestation", *KEY, "--new-bundle-format", "--type", kind, reference)
        assert done.returncode == 0, done.stderr
        envelope = json.loads(done.stdout.splitlines()[0])
        statement = json.loads(base64.b64decode(envelope["payload"]))
        assert statement["subject"][0]["digest"] == {"sha256": reference.rpartition("@sha256:")[2]}


def test_cosign_verifies_the_image_by_its_sig_tag_alone(
    signed: Publish, cosign: Callable[..., Any], skopeo: Callable[..., str], real_registry: RealRegistry
):
    here, there = signed.image_url.rpartition(":")[0], f"{real_registry.host}/mirrored-image"
    tag = signing.legacy_tag(signed.image_digest)
    skopeo("copy", "--all", f"docker://{signed.image_url}", f"docker://{there}:v1")
    skopeo("copy", f"docker://{here}:{tag}", f"docker://{there}:{tag}")
    done = cosign("verify", *KEY, f"{there}@{signed.image_digest}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["critical"]["image"] == {"docker-manifest-digest": signed.image_digest}


def test_everything_is_listed_with_its_type(signed: Publish, client: Client, request: pytest.FixtureRequest):
    repository = signed.pipeline_url.partition("/")[2].rpartition(":")[0]
    with client:
        content = manifests.get(client, repository, str(signed.pipeline_version.uuid))
        known = referrers.listed(client, Subject(repository, content.digest, len(content.content)))
    assert known.served is ("built-in" in request.node.name)
    assert sorted(entry["artifactType"] for entry in known.found) == [
        "application/vnd.cyclonedx+json",
        *["application/vnd.dev.sigstore.bundle.v0.3+json"] * 3,
        "application/vnd.in-toto+json",
    ]


def test_publishing_again_attaches_nothing(
    signed: Publish, make_publish: Callable[..., Publish], client: Client, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []
    exchange = Client.exchange
    monkeypatch.setattr(Client, "exchange", lambda self, call: (calls.append(call.method), exchange(self, call))[1])
    again = make_publish(signed.pipeline_version, packaging="image")
    assert jobs.publish(again.pk)
    assert set(calls) == {"HEAD", "GET"}


def test_another_key_signs_beside_the_first(
    signed: Publish, make_publish: Callable[..., Publish], cosign: Callable[..., Any], tmp_path: Path
):
    other = operations.create_signing_key(actor=None, name="other")
    (tmp_path / "other.pub").write_text(other.public_key)
    assert jobs.publish(make_publish(signed.pipeline_version).pk)
    for name in ("k.pub", "other.pub"):
        done = cosign("verify", "--key", name, *KEY[2:], references(signed)[0])
        assert done.returncode == 0, done.stderr


def test_helm_pulls_lints_and_installs_the_signed_chart(signed: Publish, real_registry: RealRegistry, tmp_path: Path):
    program = tool("helm")
    homes = {name: str(tmp_path / name) for name in ("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    (tmp_path / "releases.yaml").write_text("[]")
    homes |= {"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "releases.yaml")}
    login = ("-u", real_registry.username, "-p", real_registry.password)
    chart = (f"oci://{signed.chart_url}", "--version", signed.chart_version, "--plain-http")
    with FakeCluster() as cluster:
        for words in (
            ("registry", "login", real_registry.host, *login, "--insecure"),
            ("pull", *chart, "--untar"),
            ("lint", "--strict", "houseprice"),
            ("upgrade", "--install", "houseprice", *chart, "--dry-run=client", "--kube-apiserver", cluster.url),
        ):
            done = subprocess.run(
                [program, *words], capture_output=True, text=True, timeout=60, env=homes, cwd=tmp_path
            )
            assert done.returncode == 0, done.stdout + done.stderr
    assert f'image: "{signed.image_url}"' in done.stdout and "PIPELINE_URL" not in done.stdout
