"""The Helm chart: real files with values baked in, the same bytes every time, and accepted by Helm itself."""

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from publishing import chart, engine_config
from publishing.chart import ChartContent
from tests.publishing.conftest import tool

CONTENT = ChartContent(
    pipeline="houseprice",
    version="3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    created_at=datetime(2026, 11, 20, tzinfo=UTC),
    registry="reg.example:5000",
    plain_http=False,
    pipeline_url="reg.example:5000/ml/pipelines/houseprice:3b49fba8-94d8-4fca-aecc-c75257fd16c6",
    engine_url="reg.example:5000/ml/engines/opsengine:0.1.0",
    needs=engine_config.needs_of(engine_config.checked({"engine": {"cpu": 0.5, "memory": "1Gi"}})),
)
BUNDLE = "ZXhwb3J0IEE9Qgo="


@pytest.fixture
def helm(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = tool("helm")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        home = {"HELM_CACHE_HOME": str(tmp_path), "HELM_CONFIG_HOME": str(tmp_path), "HELM_DATA_HOME": str(tmp_path)}
        return subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path)} | home
        )

    return run


@pytest.fixture
def render(helm: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The objects that Helm makes of a chart, by kind."""

    def make(content: ChartContent = CONTENT, *options: str) -> dict[str, Any]:
        path = tmp_path / "chart.tgz"
        path.write_bytes(chart.archive(content))
        done = helm("template", "site-7", str(path), "--namespace", "edge", *options)
        assert done.returncode == 0, done.stderr
        found = [item for item in yaml.safe_load_all(done.stdout) if item]
        return {
            f"{item['kind']}{':pull' if item['metadata']['name'].endswith('-pull') else ''}": item for item in found
        }

    return make


def container(objects: dict[str, Any]) -> Any:
    return objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def environment(objects: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(objects)["env"]}


def test_it_is_named_after_the_pipeline_with_the_versions_uuid_as_a_pre_release() -> None:
    package = chart.build(CONTENT, "ml")
    assert (package.repository, package.tag) == ("ml/charts/houseprice", f"0.0.1-{CONTENT.version}")


def test_the_manifest_is_what_helm_pushes() -> None:
    package = chart.build(CONTENT, "ml")
    manifest = json.loads(package.manifest.content)
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    ]
    assert manifest["annotations"]["org.opencontainers.image.title"] == "houseprice"
    assert manifest["annotations"]["org.opencontainers.image.version"] == f"0.0.1-{CONTENT.version}"
    metadata = json.loads(package.blobs[0].open().read())
    assert (metadata["name"], metadata["version"], metadata["apiVersion"]) == ("houseprice", package.tag, "v2")


def test_it_has_the_same_bytes_every_time() -> None:
    assert chart.build(CONTENT, "ml").manifest == chart.build(CONTENT, "ml").manifest
    with tarfile.open(fileobj=io.BytesIO(chart.archive(CONTENT))) as tar:
        entries = tar.getmembers()
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.mode) for entry in entries} == {(0, 0, 0, "", 0o644)}
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {entry.name.partition("/")[0] for entry in entries} == {"houseprice"}


def test_any_gzip_reader_opens_it() -> None:
    large = bytes(range(256)) * 1000
    assert gzip.decompress(chart._gzip(large)) == large
    assert gzip.decompress(chart.archive(CONTENT))[:10] == b"houseprice"


def test_a_values_file_that_lost_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="0 lines of 'image', not one"):
        chart._set("other: 1\n", "image", "x")


@pytest.mark.parametrize("content", [CONTENT, replace(CONTENT, engine_url=""), replace(CONTENT, plain_http=True)])
def test_helm_lints_it_strictly(helm: Callable[..., Any], tmp_path: Path, content: ChartContent):
    path = tmp_path / "chart.tgz"
    path.write_bytes(chart.archive(content))
    done = helm("lint", "--strict", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_the_engine_as_promised(render: Callable[..., Any]):
    objects = render()
    assert environment(objects) == {
        "PIPELINE_URL": CONTENT.pipeline_url,
        "OCI_REGISTRY": "reg.example:5000",
        "CONFIG_CPUS": "0.5",
    }
    engine = container(objects)
    assert engine["image"] == CONTENT.engine_url
    assert engine["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert engine["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert engine["resources"]["limits"] == {"cpu": 0.5, "memory": "1Gi"}
    assert engine["securityContext"]["readOnlyRootFilesystem"] is True
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert {volume["name"]: "emptyDir" in volume for volume in pod["volumes"]} == {"persist": True, "tmp": True}
    assert objects["Service"]["metadata"]["name"] == "engine-svc"
    assert objects["Service"]["spec"]["ports"][0]["port"] == 8080
    assert "PersistentVolumeClaim" not in objects


def test_an_edge_bundle_brings_a_volume_that_stays_and_one_pod(render: Callable[..., Any], helm: Callable[..., Any]):
    objects = render(CONTENT, "--set-literal", f"edgeBundle={BUNDLE}")
    claim = objects["PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    volumes = objects["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert objects["Secret"]["stringData"]["EDGE_BUNDLE"] == BUNDLE


def test_two_pods_of_one_edge_are_refused(helm: Callable[..., Any], tmp_path: Path):
    (tmp_path / "chart.tgz").write_bytes(chart.archive(CONTENT))
    done = helm("template", "x", str(tmp_path / "chart.tgz"), "--set", "replicas=2", "--set", f"edgeBundle={BUNDLE}")
    assert done.returncode != 0 and "Add one edge for each engine" in done.stderr


def test_without_an_engine_image_it_says_what_to_set(
    helm: Callable[..., Any], render: Callable[..., Any], tmp_path: Path
):
    (tmp_path / "chart.tgz").write_bytes(chart.archive(replace(CONTENT, engine_url="")))
    done = helm("template", "x", str(tmp_path / "chart.tgz"))
    assert done.returncode != 0 and "give one with --set image=" in done.stderr
    assert container(render(replace(CONTENT, engine_url=""), "--set", "image=my/engine:1"))["image"] == "my/engine:1"


def test_credentials_go_into_secrets_only(render: Callable[..., Any]):
    login = ("--set-literal", "ociRegistry.username=robot$a", "--set-literal", 'ociRegistry.password=p,w"\\d')
    objects = render(CONTENT, *login)
    assert objects["Secret"]["stringData"] == {"OCI_USERNAME": "robot$a", "OCI_PASSWORD": 'p,w"\\d'}
    assert objects["Secret:pull"]["type"] == "kubernetes.io/dockerconfigjson"
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": objects["Secret:pull"]["metadata"]["name"]}]
    assert container(objects)["envFrom"] == [{"secretRef": {"name": objects["Secret"]["metadata"]["name"]}}]
    assert "p,w" not in json.dumps(objects["Deployment"])


def test_an_existing_secret_is_used_instead(render: Callable[..., Any]):
    objects = render(CONTENT, "--set", "existingSecret=mine,imagePullSecrets[0].name=pull,edgeBundleInSecret=true")
    assert "Secret" not in objects and "Secret:pull" not in objects
    assert container(objects)["envFrom"] == [{"secretRef": {"name": "mine"}}]
    assert objects["Deployment"]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert "PersistentVolumeClaim" in objects


def test_a_plain_http_registry_is_told_to_the_engine(render: Callable[..., Any]):
    assert environment(render(replace(CONTENT, plain_http=True)))["OCI_PLAIN_HTTP"] == "true"


def test_the_one_image_is_run_without_pulling_a_pipeline(render: Callable[..., Any]):
    image = "reg.example:5000/ml/images/houseprice:1"
    objects = render(replace(CONTENT, image_url=image))
    assert container(objects)["image"] == image
    assert environment(objects) == {"OCI_REGISTRY": "reg.example:5000", "CONFIG_CPUS": "0.5"}
    again = render(replace(CONTENT, image_url=image), "--set", "pipelineInImage=false")
    assert environment(again)["PIPELINE_URL"] == CONTENT.pipeline_url, "as an engine needs that checks signatures"


def test_autoscaling_of_the_deployment_configuration_is_baked_in(render: Callable[..., Any]):
    asked = {"type": "cpu", "replica_min": 0, "replica_max": 4, "cpu_utilization": 75}
    needs = engine_config.needs_of(engine_config.checked({"engine": {"autoscale": asked}}))
    spec = render(replace(CONTENT, needs=needs))["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 75


def test_gpus_and_architecture_reach_the_pod(render: Callable[..., Any]):
    needs = engine_config.needs_of(engine_config.checked({"engine": {"gpu": True, "arch": "arm"}}))
    objects = render(replace(CONTENT, needs=needs))
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert objects["Deployment"]["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64"}


def test_another_pipelines_chart_can_upgrade_a_release(render: Callable[..., Any]):
    other = replace(CONTENT, pipeline="a-much-longer-name-of-another-pipeline-with-sixty-two-letters-")
    selectors = [
        render(content)["Deployment"]["spec"]["selector"] for content in (CONTENT, replace(other, pipeline="b"))
    ]
    assert selectors[0] == selectors[1], "a Deployment's selector cannot be changed"


@pytest.mark.parametrize(
    "wrong", ["edgeBundle=not base64!", "replicas=-1", "service.port=http", "ociRegistry.plainHttp=maybe"]
)
def test_wrong_values_are_refused_by_the_schema(helm: Callable[..., Any], tmp_path: Path, wrong: str):
    (tmp_path / "chart.tgz").write_bytes(chart.archive(CONTENT))
    done = helm("template", "x", str(tmp_path / "chart.tgz"), "--set", wrong)
    assert done.returncode != 0 and "values don't meet the specifications of the schema" in done.stderr


def test_the_notes_say_how_to_reach_it(helm: Callable[..., Any], tmp_path: Path):
    """Helm shows notes only with a cluster, so they are put where it renders anything."""
    with tarfile.open(fileobj=io.BytesIO(chart.archive(CONTENT))) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "houseprice"
    (folder / "notes").write_text((folder / "templates/NOTES.txt").read_text())
    (folder / "templates/shown.yaml").write_text('kind: Shown\ntext: {{ tpl (.Files.Get "notes") . | toJson }}\n')
    done = helm("template", "x", str(folder), "--namespace", "ccfraud01", "-s", "templates/shown.yaml")
    text = yaml.safe_load(done.stdout)["text"]
    assert "kubectl port-forward svc/engine-svc -n ccfraud01 8080 --address 0.0.0.0" in text
    assert CONTENT.pipeline_url in text
