"""The whole way against CNCF distribution, with Helm and ORAS as clients that are not ours."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oras.client
import pytest

from catalog.models import ModelVersion, PipelineVersion
from publishing import jobs
from publishing.models import Publish, RegistrySettings
from publishing.oci import blobs, manifests
from publishing.oci.client import Client, Registry
from tests.fakes.kubernetes import FakeCluster
from tests.publishing.conftest import RealRegistry, tool

pytestmark = pytest.mark.e2e


@pytest.fixture
def published(
    real_registry: RealRegistry,
    to_registry: Callable[..., RegistrySettings],
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    settings: Any,
    client: Client,
    make_image: Callable[..., str],
) -> Publish:
    """A published version of a model of 5 MiB, with an engine image of two platforms."""
    make_image(client, "example/opsengine", "0.1.0", ("linux/amd64", "linux/arm64"))
    settings.ENGINE_IMAGE = f"{real_registry.host}/example/opsengine:0.1.0"
    to_registry(real_registry.host, username=real_registry.username, password=real_registry.password)
    made = make_publish(make_pipeline_version(make_model_version(content=os.urandom(5 * 1024 * 1024))))
    jobs.publish(made.pk)
    made.refresh_from_db()
    assert made.status == Publish.Status.PUBLISHED, made.error
    return made


@pytest.fixture
def client(real_registry: RealRegistry) -> Client:
    return Client(Registry(real_registry.host, real_registry.username, real_registry.password, plain_http=True))


@pytest.fixture
def helm(real_registry: RealRegistry, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = tool("helm")
    homes = {name: str(tmp_path / name) for name in ("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    (tmp_path / "releases.yaml").write_text("[]")
    homes |= {"HELM_DRIVER": "memory", "HELM_MEMORY_DRIVER_DATA": str(tmp_path / "releases.yaml")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, env=homes, cwd=tmp_path)

    login = run(
        "registry",
        "login",
        real_registry.host,
        "-u",
        real_registry.username,
        "-p",
        real_registry.password,
        "--insecure",
    )
    assert login.returncode == 0, login.stderr
    return run


def test_what_was_published_comes_back_by_digest(published: Publish, client: Client):
    repository = published.pipeline_url.partition("/")[2].rpartition(":")[0]
    with client:
        client.log_in(repository)
        by_tag = manifests.get(client, repository, str(published.pipeline_version.uuid))
        assert manifests.get(client, repository, published.pipeline_digest) == by_tag
        found = json.loads(by_tag.content)
        for layer in found["layers"]:
            data = b"".join(blobs.download(client, repository, layer["digest"]))
            assert len(data) == layer["size"]
    assert found["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"


def test_publishing_again_uploads_nothing(
    published: Publish, make_publish: Callable[..., Publish], monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []
    exchange = Client.exchange

    def watched(client: Client, call: Any) -> Any:
        calls.append(call.method)
        return exchange(client, call)

    monkeypatch.setattr(Client, "exchange", watched)
    again = make_publish(published.pipeline_version)
    assert jobs.publish(again.pk)
    again.refresh_from_db()
    assert (again.pipeline_digest, again.chart_digest) == (published.pipeline_digest, published.chart_digest)
    assert set(calls) == {"HEAD", "GET"}  # GET of the manifests of the engine image, and of what refers to them


def test_a_model_is_mounted_from_another_pipeline(
    published: Publish,
    make_publish: Callable[..., Publish],
    make_pipeline_version: Callable[..., PipelineVersion],
    monkeypatch: pytest.MonkeyPatch,
):
    sent: list[Any] = []
    send = blobs._send
    monkeypatch.setattr(
        blobs,
        "_send",
        lambda target, blob, *rest: (sent.append(blob), send(target, blob, *rest)),
    )
    other = make_publish(make_pipeline_version(ModelVersion.objects.get(), name="other"))
    assert jobs.publish(other.pk)
    assert sent and all(blob.size < 1_000_000 for blob in sent)


def test_a_wrong_password_is_told(
    published: Publish, make_publish: Callable[..., Publish], real_registry: RealRegistry
):
    RegistrySettings.objects.update(username="nobody")
    again = make_publish(published.pipeline_version)
    assert jobs.publish(again.pk) is False
    again.refresh_from_db()
    assert again.error.startswith(f"{real_registry.host} refused the login (401")


def test_oras_pulls_the_model_as_it_was_uploaded_and_resolves_the_charts_reference(
    published: Publish, real_registry: RealRegistry, tmp_path: Path
):
    """ORAS needs a title to name files by, so it takes the blob."""
    puller = oras.client.OrasClient(hostname=real_registry.host, insecure=True, auth_backend="basic")
    puller.auth.set_basic_auth(real_registry.username, real_registry.password)
    model = ModelVersion.objects.get()
    target = str(tmp_path / "model")
    puller.download_blob(published.pipeline_url, f"sha256:{model.sha256}", target)
    assert hashlib.sha256(Path(target).read_bytes()).hexdigest() == model.sha256
    manifest = puller.get_manifest(published.pipeline_url)
    assert len(manifest["layers"]) == 2
    reference = f"{published.chart_url}@{published.chart_digest}"
    assert puller.get_manifest(reference)["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"


def test_helm_pulls_the_exact_version_and_renders_it(published: Publish, helm: Callable[..., Any], tmp_path: Path):
    url = f"oci://{published.chart_url}"
    pulled = helm("pull", url, "--version", published.chart_version, "--plain-http", "--untar")
    assert pulled.returncode == 0, pulled.stderr
    assert published.chart_digest in pulled.stdout + pulled.stderr
    assert helm("lint", "--strict", str(tmp_path / "houseprice")).returncode == 0
    shown = helm("template", "x", url, "--version", published.chart_version, "--plain-http")
    assert shown.returncode == 0, shown.stderr
    assert f'value: "{published.pipeline_url}"' in shown.stdout
    assert f'image: "{published.engine_url}"' in shown.stdout


def test_helm_upgrades_or_installs_straight_from_the_registry(published: Publish, helm: Callable[..., Any]):
    with FakeCluster() as cluster:
        done = helm(
            *("upgrade", "--install", "houseprice", f"oci://{published.chart_url}"),
            *("--version", published.chart_version, "--plain-http", "--namespace", "ml", "--create-namespace"),
            *("--dry-run=client", "--kube-apiserver", cluster.url),
        )
    assert done.returncode == 0, done.stderr
    assert "kubectl port-forward svc/engine-svc -n ml 8080" in done.stdout


def test_helms_own_push_of_the_chart_has_the_same_layer(
    published: Publish, helm: Callable[..., Any], client: Client, real_registry: RealRegistry, tmp_path: Path
):
    assert (
        helm("pull", f"oci://{published.chart_url}", "--version", published.chart_version, "--plain-http").returncode
        == 0
    )
    archive = tmp_path / f"houseprice-{published.chart_version}.tgz"
    pushed = helm("push", str(archive), f"oci://{real_registry.host}/helms-own", "--plain-http")
    assert pushed.returncode == 0, pushed.stderr
    with client:
        theirs = json.loads(manifests.get(client, "helms-own/houseprice", published.chart_version).content)
        ours = json.loads(manifests.get(client, "ml/charts/houseprice", published.chart_version).content)
    assert ours["layers"] == theirs["layers"]
    assert ours["config"]["mediaType"] == theirs["config"]["mediaType"]
    kept = {key for key in theirs["annotations"] if key != "org.opencontainers.image.created"}
    assert {key: ours["annotations"][key] for key in kept} == {key: theirs["annotations"][key] for key in kept}
