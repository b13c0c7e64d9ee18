"""The page on which a version is tried."""

import html
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import PipelineVersion, User
from publishing.schema_changes import Interface, Tensor
from trials import answers, examples

pytestmark = pytest.mark.django_db
Browser = Callable[..., Client]


def address(version: PipelineVersion) -> str:
    return f"/pipeline-versions/{version.pk}/infer"


def text(response: Any) -> str:
    return html.unescape(response.content.decode())


def test_it_begins_with_records_that_fit(version: PipelineVersion, member: User, browser: Browser) -> None:
    page = browser(member).get(address(version))
    assert page.status_code == 200
    records = page.context["form"]["records"].value()
    assert records.split() == ["[", "{", '"tensor":', "[", "0.0,", "0.0,", "0.0", "]", "}", "]"]
    answered = browser(member).post(address(version), {"records": records})
    assert answered.status_code == 200
    assert "1 row," in text(answered)


def test_the_answer_is_shown_by_row(version: PipelineVersion, member: User, browser: Browser) -> None:
    page = text(browser(member).post(address(version), {"records": '[{"tensor": [1, 2, 3]}, {"tensor": [4, 5, 6]}]'}))
    assert "2 rows," in page and "ms in the pipeline" in page
    assert '<span class="text-secondary">y</span> 12<' in page
    assert '<span class="text-secondary">y</span> 30<' in page


def test_the_whole_answer_has_a_tensor_in_a_line_and_texts_as_they_are() -> None:
    record = {"time": 0, "in": {"x": [1.5, 2.5]}, "out": {"y": ["[ 1,  2 ]\n", "b"]}, "anomaly": {"count": 0}}
    record["metadata"] = {"last_model": "{}", "pipeline_version": "", "elapsed": [1], "partition": ""}
    answer = answers.of_json(json.dumps([record] * 3).encode())
    assert json.loads(answer.whole) == [record] * 3
    assert '"x": [1.5, 2.5]' in answer.whole
    assert not answer.is_cut
    long = answers.of_json(json.dumps([record | {"in": {"x": [0.5] * answers.LONGEST}}]).encode())
    assert long.is_cut
    assert len(long.whole) == answers.LONGEST


def test_a_file_goes_before_what_is_typed(version: PipelineVersion, member: User, browser: Browser) -> None:
    file = SimpleUploadedFile("rows.json", b'[{"tensor": [1, 1, 1]}]')
    page = text(browser(member).post(address(version), {"records": "[", "file": file}))
    assert '<span class="text-secondary">y</span> 6<' in page


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"records": '[{"tensor": [1]}]'}, "tensor"),
        ({"records": " "}, "Type records, or choose a file."),
        ({"file": b"x" * (2**20 + 1)}, "more than 1 MiB"),
    ],
)
def test_a_refusal_is_told_on_the_form_which_keeps_what_was_typed(
    version: PipelineVersion, member: User, browser: Browser, given: dict[str, Any], told: str
) -> None:
    sent = {name: SimpleUploadedFile("f", v) if isinstance(v, bytes) else v for name, v in given.items()}
    answered = browser(member).post(address(version), sent)
    assert answered.status_code == 422
    assert told in text(answered)
    if isinstance(given.get("records"), str):
        assert given["records"].strip() in text(answered)


def test_why_it_cannot_be_tried_stands_instead_of_the_form(
    make_version: Callable[..., PipelineVersion], member: User, browser: Browser
) -> None:
    page = text(browser(member).get(address(make_version(framework="python"))))
    assert "on edges only" in page and "<textarea" not in page


def test_the_version_history_leads_there_for_those_who_may(
    version: PipelineVersion, member: User, viewer: User, browser: Browser
) -> None:
    history = f"/pipelines/{version.pipeline_id}"
    assert f'href="{address(version)}"' in text(browser(member).get(history))
    assert f'href="{address(version)}"' not in text(browser(viewer).get(history))


def test_the_page_costs_few_queries(version: PipelineVersion, member: User, browser: Browser) -> None:
    client = browser(member)
    client.get(address(version))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        client.get(address(version))
    assert len(queries) <= 16


def interface(*inputs: Tensor) -> Interface:
    return Interface("p", ("m",), inputs, ())


def test_examples_have_a_value_of_each_type() -> None:
    inputs = [Tensor(kind, kind, (None, 1)) for kind in ("float16", "int64", "bool", "string")]
    assert json.loads(examples.of_interface(interface(*inputs))) == [
        {"float16": [0.0], "int64": [0], "bool": [False], "string": ["text"]}
    ]


@pytest.mark.parametrize("shape", [None, (None, 3, 224, 224)])
def test_what_is_too_long_or_unknown_is_left_empty(shape: tuple[int | None, ...] | None) -> None:
    assert examples.of_interface(interface(Tensor("image", "float32", shape))) == ""


def test_nested_examples_have_the_shape_of_a_row() -> None:
    found = json.loads(examples.of_interface(interface(Tensor("x", "float32", (None, 2, 3)))))
    assert found == [{"x": [[0.0] * 3] * 2}]
