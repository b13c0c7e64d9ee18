"""Golden requests: what is taken, what is refused and why, and that a version ships one for ever."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from catalog.models import ModelVersion, PipelineVersion, User
from publishing import artifact, golden, jobs, operations, queries
from publishing.errors import OtherGolden, UnusableGolden
from publishing.models import GoldenRequest, Publish
from publishing.schema_changes import Interface, Tensor
from tests.conftest import CONTRACT
from tests.fakes.oci import FakeRegistry

CONTRACTS = json.loads((CONTRACT / "golden.json").read_text())
OTHER = {**CONTRACTS, "output": {"variable": [[1.0]]}}
INTERFACE = Interface("p", ("m",), (Tensor("tensor", "float32", None),), (Tensor("variable", "float32", None),))
TWO = Interface("p", ("m",), (Tensor("a", "float32", None), Tensor("b", "float32", None)), ())
Api = Callable[..., APIClient]


@pytest.fixture
def version(make_pipeline_version: Callable[..., PipelineVersion], to_fake: FakeRegistry, sent: Any) -> PipelineVersion:
    return make_pipeline_version()


def arrived(publish: Publish) -> Publish:
    assert jobs.publish(publish.pk)
    publish.refresh_from_db()
    return publish


def layer_of(fake: FakeRegistry, publish: Publish) -> Any:
    """What an engine finds at golden.json."""
    told = json.loads(fake.manifests[("ml/pipelines/houseprice", publish.pipeline_digest)][0])
    found = [layer for layer in told["layers"] if layer["annotations"][artifact.FILE_PATH] == "golden.json"]
    return json.loads(fake.blobs["ml/pipelines/houseprice"][found[0]["digest"]]) if found else None


def test_the_contracts_is_stored_and_shipped(owner: User, version: PipelineVersion, to_fake: FakeRegistry):
    made = arrived(operations.publish(actor=owner, version=version, golden=CONTRACTS))
    assert layer_of(to_fake, made) == CONTRACTS
    kept = GoldenRequest.objects.get()
    assert (json.loads(kept.content), kept.records, made.golden) == (CONTRACTS, 1, kept)


def test_without_one_the_artifact_is_what_it_was(owner: User, version: PipelineVersion, to_fake: FakeRegistry):
    made = arrived(operations.publish(actor=owner, version=version))
    assert layer_of(to_fake, made) is None and made.golden is None
    assert made.pipeline_digest == artifact.build(queries.content_of(version), "ml").manifest.digest


def test_publishing_again_ships_the_same_without_being_told(
    owner: User, version: PipelineVersion, to_fake: FakeRegistry
):
    first = arrived(operations.publish(actor=owner, version=version, golden=CONTRACTS))
    silent = arrived(operations.publish(actor=owner, version=version))
    repeated = arrived(operations.publish(actor=owner, version=version, golden=dict(reversed(CONTRACTS.items()))))
    assert {first.pipeline_digest, silent.pipeline_digest} == {repeated.pipeline_digest}
    assert GoldenRequest.objects.count() == 1


@pytest.mark.parametrize(("first", "words"), [(OTHER, "with another"), (None, "without a")])
def test_another_one_for_a_version_that_is_published_is_refused(
    owner: User, version: PipelineVersion, first: Any, words: str
):
    before = operations.publish(actor=owner, version=version, golden=first)
    with pytest.raises(OtherGolden, match=f"{words} golden request.*make a new version") as refused:
        operations.publish(actor=owner, version=version, golden=CONTRACTS)
    assert refused.value.data == {"publish": before.pk}
    assert Publish.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_settles_it(owner: User, version: PipelineVersion):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's writing transactions are one at a time, and its tests' database is one of memory")
    results: list[str] = []
    both = threading.Barrier(2)

    def ask(given: Any) -> None:
        both.wait(10)
        try:
            results.append(operations.publish(actor=owner, version=version, golden=given).golden.digest)  # type: ignore[union-attr]
        except OtherGolden:
            results.append("")
        finally:
            connection.close()

    asking = [threading.Thread(target=ask, args=(given,)) for given in (CONTRACTS, OTHER)]
    for each in asking:
        each.start()
    for each in asking:
        each.join(30)
    assert sorted(map(bool, results)) == [False, True]
    assert {publish.golden.digest for publish in Publish.objects.all() if publish.golden} == {*filter(None, results)}


def test_after_a_publish_that_failed_another_may_be_given(owner: User, version: PipelineVersion, to_fake: FakeRegistry):
    to_fake.fail("POST", "/uploads/", status=403)
    wrong = operations.publish(actor=owner, version=version, golden=OTHER)
    assert not jobs.publish(wrong.pk)
    made = arrived(operations.publish(actor=owner, version=version, golden=CONTRACTS))
    assert layer_of(to_fake, made) == CONTRACTS
    with pytest.raises(OtherGolden, match=f"Publish {made.pk} brought this version with another"):
        operations.retry(actor=owner, publish=wrong)
    assert Publish.objects.get(pk=wrong.pk).status == Publish.Status.ERROR


def test_a_failed_one_is_tried_again_with_its_own(owner: User, version: PipelineVersion, to_fake: FakeRegistry):
    to_fake.fail("POST", "/uploads/", status=403)
    made = operations.publish(actor=owner, version=version, golden=CONTRACTS)
    assert not jobs.publish(made.pk)
    operations.retry(actor=owner, publish=made)
    assert layer_of(to_fake, arrived(made)) == CONTRACTS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "an object with input and output"),
        ({"input": [{"tensor": [1.0]}]}, "an object with input and output"),
        ({**CONTRACTS, "tolerance": 1}, "no 'tolerance', only"),
        ({**CONTRACTS, "input": []}, "a list of records"),
        ({**CONTRACTS, "input": [{}]}, "a list of records"),
        ({**CONTRACTS, "input": {"tensor": [1.0]}}, "a list of records"),
        ({**CONTRACTS, "output": {}}, "an object of columns"),
        ({**CONTRACTS, "output": {"price": [[1.0]]}}, "names 'price', but the pipeline gives variable"),
        ({**CONTRACTS, "output": {"variable": [[1.0], [2.0]]}}, "one value a record: 1"),
        ({**CONTRACTS, "output": {"variable": 1}}, "one value a record: 1"),
        ({**CONTRACTS, "output": {"variable": [[float("nan")]]}}, "cannot hold, such as NaN"),
        ({**CONTRACTS, "input": [{"tensor": "\ud800"}]}, "cannot hold"),
        ({**CONTRACTS, "rtol": -1}, "rtol of the golden request is a number"),
        ({**CONTRACTS, "atol": "1"}, "atol of the golden request is a number"),
        ({**CONTRACTS, "atol": float("inf")}, "atol of the golden request is a number"),
        ({**CONTRACTS, "rtol": True}, "rtol of the golden request is a number"),
        ({**CONTRACTS, "input": [{"tensor": "x" * golden.MOST_BYTES}]}, "take fewer records"),
    ],
)
def test_what_no_engine_could_try_is_refused_by_name(given: Any, words: str):
    with pytest.raises(UnusableGolden, match=words):
        golden.checked(given, INTERFACE)


def test_every_input_of_several_must_be_there():
    given = {"input": [{"a": 1.0, "b": 2.0}, {"a": 1.0}], "output": {"y": [1.0, 2.0]}}
    with pytest.raises(UnusableGolden, match="input 1 of the golden request lacks 'b'"):
        golden.checked(given, TWO)


def test_columns_are_not_compared_with_models_that_tell_nothing():
    silent = Interface("p", ("m",), (), ())
    assert golden.checked({"input": [{"any": 1}], "output": {"thing": [None]}}, silent).records == 1


def test_by_rest_it_is_taken_shown_and_read(api: Api, member: User, stranger: User, version: PipelineVersion):
    url = f"/api/v1/pipelines/{version.pipeline_id}/publishes"
    answer = api(member).post(url, {"golden": CONTRACTS}, format="json")
    assert answer.status_code == 202, answer.json()
    told = answer.json()["golden"]
    assert told["records"] == 1 and told["digest"].startswith("sha256:")
    path = f"/api/v1/publishes/{answer.json()['id']}/golden"
    assert api(member).get(path).json() == CONTRACTS
    assert api(stranger).get(path).status_code == 404


def test_by_rest_a_wrong_one_is_400_and_another_one_409(api: Api, member: User, version: PipelineVersion):
    url = f"/api/v1/pipelines/{version.pipeline_id}/publishes"
    wrong = api(member).post(url, {"golden": {"input": []}}, format="json")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unusable_golden")
    none = api(member).post(url, {"golden": None}, format="json")
    assert (none.status_code, none.json()["golden"]) == (202, None)
    other = api(member).post(url, {"golden": CONTRACTS}, format="json")
    assert (other.status_code, other.json()["code"]) == (409, "other_golden")
    assert api(member).get(f"/api/v1/publishes/{none.json()['id']}/golden").status_code == 404


def test_lists_do_not_read_its_text(
    api: Api, viewer: User, version: PipelineVersion, owner: User, django_assert_max_num_queries: Any
):
    for _ in range(3):
        operations.publish(actor=owner, version=version, golden=CONTRACTS)
    with django_assert_max_num_queries(12) as seen:
        api(viewer).get(f"/api/v1/pipelines/{version.pipeline_id}/publishes")
    assert not [query for query in seen.captured_queries if '"content"' in query["sql"]]


def test_a_step_that_is_named_only_here_is_found_in_the_version(
    owner: User,
    make_model_version: Callable[..., ModelVersion],
    make_pipeline_version: Callable[..., PipelineVersion],
    to_fake: FakeRegistry,
    sent: Any,
):
    """The last model's outputs count, and the first one's inputs."""
    tensor = {"type": "float32", "shape": [None, 1]}
    first = make_model_version("first", b"1", outputs=[{"name": "between", **tensor}])
    last = make_model_version("last", b"2", inputs=[{"name": "between", **tensor}])
    version = make_pipeline_version(first, last)
    with pytest.raises(UnusableGolden, match="names 'between', but the pipeline gives variable"):
        operations.publish(
            actor=owner, version=version, golden={"input": [{"tensor": [1.0]}], "output": {"between": [1.0]}}
        )
