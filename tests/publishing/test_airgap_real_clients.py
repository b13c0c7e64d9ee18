"""An exported publish as skopeo, oras and cosign read it, between two registries that are not ours."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import oras.layout
import pytest

from catalog.models import ModelVersion, PipelineVersion
from publishing import exports, jobs, operations
from publishing.models import Publish, RegistrySettings
from tests.publishing.conftest import RealRegistry, tool

pytestmark = pytest.mark.e2e


@pytest.fixture
def exported(
    real_registry: RealRegistry,
    to_registry: Callable[..., RegistrySettings],
    make_publish: Callable[..., Publish],
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    tmp_path: Path,
) -> tuple[Publish, Path]:
    operations.create_signing_key(actor=None, name="site")
    to_registry(real_registry.host, username=real_registry.username, password=real_registry.password)
    made = make_publish(make_pipeline_version(make_model_version(content=b"weights" * 100_000)))
    jobs.publish(made.pk)
    made.refresh_from_db()
    assert made.status == Publish.Status.PUBLISHED, made.error
    exports.export_publish(made.pk, tmp_path / "p.tar")
    return made, tmp_path / "p.tar"


@pytest.fixture
def skopeo(real_registry: RealRegistry) -> Callable[..., str]:
    program, login = tool("skopeo"), f"{real_registry.username}:{real_registry.password}"

    def run(*words: str) -> str:
        done = subprocess.run([program, *words[:1], *words[1:]], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def copy(source: str, target: str) -> str:
        return run("copy", "--dest-creds", login, "--dest-tls-verify=false", "--preserve-digests", source, target)

    def inspect(reference: str) -> str:
        return run("inspect", "--raw", "--creds", login, "--tls-verify=false", reference)

    return lambda verb, *words: {"copy": copy, "inspect": inspect}[verb](*words)


@pytest.mark.parametrize("name", ["pipeline", "chart", "pipeline.sig", "chart.sig"])
def test_skopeo_copies_each_part_with_its_digest(
    exported: tuple[Publish, Path], skopeo: Callable[..., str], real_registry: RealRegistry, tmp_path: Path, name: str
):
    _, path = exported
    target = f"docker://{real_registry.host}/by-skopeo/{name.partition('.')[0]}:{name}"
    skopeo("copy", f"oci-archive:{path}:{name}", target)
    found = skopeo("inspect", target).encode()
    index = json.loads(subprocess.run(["tar", "-xOf", path, "index.json"], capture_output=True, check=True).stdout)
    wanted = {
        entry["annotations"].get("org.opencontainers.image.ref.name"): entry["digest"] for entry in index["manifests"]
    }
    assert f"sha256:{hashlib.sha256(found).hexdigest()}" == wanted[name]


def test_an_import_into_distribution_has_the_same_digests_and_verifies(
    exported: tuple[Publish, Path],
    to_registry: Callable[..., RegistrySettings],
    real_registry: RealRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    made, path = exported
    to_registry(
        real_registry.host,
        repository="second/site",
        username=real_registry.username,
        password=real_registry.password,
    )
    found = exports.import_publish(path)
    assert {part.name: part.digest for part in found.parts}["pipeline"] == made.pipeline_digest
    assert {part.name for part in found.parts} == {"pipeline", "pipeline.sig", "chart", "chart.sig"}
    assert made.signing_key
    (tmp_path / "k.pub").write_text(made.signing_key.public_key)
    (tmp_path / "roots.json").write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    login = subprocess.run(
        [
            *(tool("skopeo"), "login", "--tls-verify=false", "--authfile", str(tmp_path / "config.json")),
            *("-u", real_registry.username, "-p", real_registry.password, real_registry.host),
        ],
        capture_output=True,
    )
    assert login.returncode == 0
    done = subprocess.run(
        [
            *(tool("cosign"), "verify", "--key", "k.pub", "--insecure-ignore-tlog=true"),
            *("--trusted-root", "roots.json"),
            f"{real_registry.host}/second/site/pipelines/houseprice@{made.pipeline_digest}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_oras_reads_the_file(exported: tuple[Publish, Path], tmp_path: Path):
    made, path = exported
    folder = tmp_path / "layout"
    folder.mkdir()
    subprocess.run(["tar", "-xf", path, "-C", folder], check=True)
    found = oras.layout.NewLayout(str(folder))
    assert found.get_ordered_blobs("pipeline")[-1] == made.pipeline_digest
    assert found.get_ordered_blobs("chart")[-1] == made.chart_digest
