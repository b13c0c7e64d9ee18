"""The pipeline artifact: the contract's shape, and one digest for one version."""

import json
from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import pytest

from catalog.models import ModelVersion, PipelineVersion
from publishing import artifact, queries
from publishing.oci.packages import Package
from tests.conftest import CONTRACT


@pytest.fixture
def build(make_model_version: Callable[..., ModelVersion], make_pipeline_version: Callable[..., PipelineVersion]):
    def make(*models: ModelVersion, **fields: Any) -> tuple[PipelineVersion, Package]:
        version = make_pipeline_version(*(models or (make_model_version(),)), **fields)
        return version, artifact.build(queries.content_of(version), "team/ml")

    return make


def content(package: Package, media_type: str) -> Any:
    blob = next(blob for blob in package.blobs if blob.media_type == media_type)
    return json.loads(blob.open().read())


def test_it_is_tagged_with_the_versions_uuid_in_the_pipelines_repository(build: Callable[..., Any]):
    version, package = build()
    assert (package.repository, package.tag) == ("team/ml/pipelines/houseprice", str(version.uuid))


def test_the_manifest_has_the_contracts_shape(build: Callable[..., Any]):
    version, package = build()
    golden = json.loads((CONTRACT / "artifact.manifest.json").read_text())
    found = json.loads(package.manifest.content)
    assert found.keys() == golden.keys()
    for key in ("schemaVersion", "mediaType", "artifactType"):
        assert found[key] == golden[key]
    assert found["config"]["mediaType"] == golden["config"]["mediaType"]
    assert [layer["mediaType"] for layer in found["layers"]] == [layer["mediaType"] for layer in golden["layers"]]
    assert [layer.keys() for layer in found["layers"]] == [layer.keys() for layer in golden["layers"]]
    assert found["annotations"].keys() == golden["annotations"].keys()
    assert found["annotations"]["org.opencontainers.image.version"] == str(version.uuid)
    model = ModelVersion.objects.get()
    assert found["layers"][1]["digest"] == f"sha256:{model.sha256}"
    assert found["layers"][1]["annotations"] == {
        "org.cncf.model.filepath": f"models/house-price/{model.uuid}/house-price.onnx"
    }


def test_pipeline_json_has_the_contracts_shape(build: Callable[..., Any]):
    version, package = build()
    golden = json.loads((CONTRACT / "pipeline.json").read_text())
    found = content(package, artifact.PIPELINE_TYPE)
    assert found.keys() == golden.keys()
    assert found["models"][0].keys() == golden["models"][0].keys()
    assert found["pipeline"] == {"name": "houseprice", "version": str(version.uuid)}
    assert found["definition"] == version.definition
    assert found["models"][0]["config"] == {"tensor_fields": ["tensor"]}
    assert found["format"] == golden["format"] and found["engine"] == golden["engine"]


def test_the_config_is_the_model_specs(build: Callable[..., Any]):
    _, package = build()
    found = content(package, artifact.CONFIG_TYPE)
    layers = json.loads(package.manifest.content)["layers"]
    assert found.keys() == {"descriptor", "config", "modelfs"}
    assert found["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in layers]}
    assert found["config"] == {"format": "onnx"}
    assert found["descriptor"]["name"] == "houseprice"
    assert found["descriptor"]["createdAt"].endswith("Z")


def test_every_digest_and_size_is_that_of_the_bytes(build: Callable[..., Any], make_model_version: Callable[..., Any]):
    _, package = build(make_model_version("a", b"one"), make_model_version("b", b"twotwo"))
    for blob in package.blobs:
        with blob.open() as file:
            data = file.read()
        assert len(data) == blob.size
        assert artifact.manifests.digest_of(data) == blob.digest


def test_the_same_version_has_the_same_digest_whatever_order_a_database_gives_keys_in(build: Callable[..., Any]):
    version, package = build()
    again = PipelineVersion.objects.get(pk=version.pk)
    again.definition = {key: again.definition[key] for key in reversed(again.definition)}
    again.created_at = again.created_at.astimezone(timezone(timedelta(hours=5)))
    assert artifact.build(queries.content_of(again), "team/ml").manifest == package.manifest


def test_two_versions_of_the_same_steps_differ(build: Callable[..., Any], make_model_version: Callable[..., Any]):
    model = make_model_version()
    assert build(model)[1].manifest.digest != build(model)[1].manifest.digest


def test_a_later_config_does_not_change_a_version(build: Callable[..., Any]):
    version, package = build()
    ModelVersion.objects.get().configs.create(tensor_fields=["other"])
    assert artifact.build(queries.content_of(version), "team/ml").manifest == package.manifest


def test_two_models_of_the_same_bytes_are_two_layers_and_counted_once(
    build: Callable[..., Any], make_model_version: Callable[..., Any]
):
    _, package = build(make_model_version("a", b"same"), make_model_version("b", b"same"))
    layers = json.loads(package.manifest.content)["layers"]
    assert layers[1]["digest"] == layers[2]["digest"] and layers[1]["annotations"] != layers[2]["annotations"]
    assert package.size == sum({blob.digest: blob.size for blob in package.blobs}.values())


def test_a_file_name_cannot_lead_out_of_the_artifact(build: Callable[..., Any], make_model_version: Callable[..., Any]):
    _, package = build(make_model_version("a", b"x", file_name="..\\..\\etc/../passwd"))
    path = json.loads(package.manifest.content)["layers"][1]["annotations"]["org.cncf.model.filepath"]
    assert path.endswith("/passwd") and ".." not in path
