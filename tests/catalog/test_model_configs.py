"""`POST /api/v1/model-versions/<id>/configs`: which columns feed a model, and how rows of callers are batched."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from catalog.models import ModelVersion, PipelineVersion, User
from publishing import artifact, queries

Api = Callable[..., APIClient]
MakeModelVersion = Callable[..., ModelVersion]


def configure(client: APIClient, version: ModelVersion, **told: Any) -> Any:
    return client.post(f"/api/v1/model-versions/{version.pk}/configs", {"tensor_fields": None} | told, format="json")


def test_batching_is_kept_and_shown(api: Api, member: User, make_model_version: MakeModelVersion) -> None:
    version = make_model_version()
    answer = configure(api(member), version, batching={"max_rows": 64, "max_wait_us": 500})
    assert answer.status_code == 201, answer.json()
    shown = api(member).get(f"/api/v1/model-versions/{version.pk}").json()["config"]
    assert shown["batching"] == {"max_rows": 64, "max_wait_us": 500}


def test_batching_is_off_unless_asked_for(api: Api, member: User, make_model_version: MakeModelVersion) -> None:
    assert configure(api(member), make_model_version()).json()["batching"] is None


@pytest.mark.parametrize(
    "batching", [{"max_rows": 1, "max_wait_us": 0}, {"max_rows": 8}, {"max_rows": 8, "max_wait_us": 10**7}]
)
def test_limits_that_no_engine_takes_are_refused(
    api: Api, member: User, make_model_version: MakeModelVersion, batching: Any
) -> None:
    assert configure(api(member), make_model_version(), batching=batching).status_code == 400


def test_a_model_of_fixed_rows_cannot_be_batched(api: Api, member: User, make_model_version: MakeModelVersion) -> None:
    version = make_model_version(inputs=[{"name": "x", "type": "float32", "shape": [1, 28, 28]}])
    answer = configure(api(member), version, batching={"max_rows": 8, "max_wait_us": 0})
    assert (answer.status_code, "fixed number of rows" in answer.json()["message"]) == (400, True)


def test_engines_are_told_of_batching_and_older_artifacts_stay(
    api: Api, member: User, make_model_version: MakeModelVersion, make_pipeline_version: Callable[..., PipelineVersion]
) -> None:
    model = make_model_version()
    without = artifact.pipeline_json(queries.content_of(make_pipeline_version(model)))
    assert without["models"][0]["config"] == {"tensor_fields": ["tensor"]}
    configure(api(member), model, tensor_fields=["tensor"], batching={"max_rows": 8, "max_wait_us": 0})
    model.refresh_from_db()
    told = artifact.pipeline_json(queries.content_of(make_pipeline_version(model)))
    assert told["models"][0]["config"]["batching"] == {"max_rows": 8, "max_wait_us": 0}
