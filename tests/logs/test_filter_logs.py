"""Filters of `GET /api/v1/pipelines/<id>/logs`: just the rows asked for, each once, however few match."""

import dataclasses
import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from django.http import QueryDict
from rest_framework.test import APIClient

from catalog.models import PipelineVersion, User
from common.errors import Invalid
from logs import merge, queries
from logs.filters import Filters
from logs.query import Order, Query, Status
from tests.logs import rows
from tests.logs.conftest import Device
from tests.logs.test_merge import Pages, Stored

pytestmark = pytest.mark.django_db

Api = Callable[..., APIClient]


def read(client: APIClient, device: Device, **query: Any) -> Any:
    return client.get(f"/api/v1/pipelines/{device.version.pipeline_id}/logs", query)


def ids(response: Any) -> list[int]:
    assert response.status_code == 200, response.content
    return [row["in"]["id"] for row in response.json()]


def model_json(name: str, sha: str) -> str:
    return json.dumps({"model_name": name, "model_sha": sha})


def page(device: Device, begin: int, names: list[int], last_model: str, anomaly: list[Any], **changes: Any) -> bytes:
    """A page with models and anomalies of its own."""
    table = rows.table(
        rows.run(len(names), rows.START + begin),
        names=names,
        version=device.version.uuid,
        partition=device.edge.name,
        **changes,
    )
    metadata = [row | {"last_model": last_model} for row in table["metadata"].to_pylist()]
    table = table.set_column(4, "metadata", pa.array(metadata, rows.METADATA))
    return rows.stream(table.set_column(3, "anomaly", pa.array(anomaly)))


@pytest.fixture
def shops(make_device: Callable[..., Device]) -> Device:
    """Three edges of one pipeline; rows 0 to 8, their outputs 0 to 8 too."""
    first = make_device("shop-oslo")
    second = make_device("shop-bergen", first.version)
    third = make_device("depot-1", first.version)
    plain = [{"count": 0, "too_high": False, "odd": False}] * 2
    failed = {"count": 1, "too_high": True, "odd": False}
    for number, (device, model) in enumerate([(first, "houses"), (second, "houses-2"), (third, "other")]):
        names = [3 * number, 3 * number + 1, 3 * number + 2]
        outputs = {"price": pa.array([[float(name)] for name in names], pa.list_(pa.float32()))}
        body = page(device, 3 * number, names, model_json(model, f"{number}" * 64), [*plain, failed], outputs=outputs)
        assert device.ship(body).status_code == 200
    return first


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"edge": "shop-*"}, [5, 4, 3, 2, 1, 0]),
        ({"edge": "*-?"}, [8, 7, 6]),
        ({"edge": ["shop-oslo", "depot-*"]}, [8, 7, 6, 2, 1, 0]),
        ({"edge": "shop"}, []),
        ({"edge": "shop.oslo*"}, []),  # a pattern is no regular expression
        ({"edge": ""}, [8, 7, 6, 5, 4, 3, 2, 1, 0]),  # as a form sends it
        ({"model": "houses"}, [2, 1, 0]),
        ({"model": "houses*"}, [5, 4, 3, 2, 1, 0]),
        ({"model": "2" * 64}, [8, 7, 6]),
        ({"model": ["houses", "other"]}, [8, 7, 6, 2, 1, 0]),
        ({"anomaly": "count"}, [8, 5, 2]),
        ({"anomaly": "too_high", "edge": "shop-*"}, [5, 2]),
        ({"anomaly": "odd"}, []),
        ({"anomaly": ["odd", "too_high"]}, [8, 5, 2]),
        ({"anomaly": "no_such"}, []),
        ({"filter": "out.price > 6.5"}, [8, 7]),
        ({"filter": ["out.price > 2", "out.price < 5"]}, [4, 3]),
        ({"filter": "out.price > 2 and out.price < 5", "order": "asc"}, [3, 4]),
        ({"filter": "in.id = 4 or in.id = 1"}, [4, 1]),
        ({"filter": "anomaly.count > 0", "start": rows.START + 3, "end": rows.START + 6}, [5]),
        ({"filter": "out.no_such = 1"}, []),
        ({"filter": "out.price > 'x'"}, []),
        ({"filter": "out.price > 3", "limit": 2}, [8, 7]),
        ({"filter": "out.price > 3", "dataset": "in.id"}, [8, 7, 6, 5, 4]),  # also on columns that were not asked for
    ],
)
def test_only_the_rows_asked_for(shops: Device, api: Api, viewer: User, query: dict[str, Any], expected: Any) -> None:
    assert ids(read(api(viewer), shops, **query)) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"filter": "price > 1"}, "needs a column of in, out, anomaly or metadata"),
        ({"filter": ["out.a = 1"] * 21}, "filter may be given at most 20 times"),
        ({"edge": "x" * 300}, "edge may have at most 256 characters"),
        ({"pipeline_version": "1"}, "pipeline_version must be a UUID, not '1'"),
        ({"start": "yesterday"}, "start must be ISO 8601 or epoch milliseconds, not 'yesterday'"),
        ({"end": "2025-13-45T00:00"}, "end must be ISO 8601"),
        ({"model": "a\0b"}, "NUL"),
    ],
)
def test_a_wrong_filter_is_400_and_named(
    shops: Device, api: Api, viewer: User, query: dict[str, Any], message: str
) -> None:
    response = read(api(viewer), shops, **query)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert message in response.json()["message"]


def test_several_pipeline_versions(
    make_device: Callable[..., Device], make_pipeline_version: Callable[..., PipelineVersion], api: Api, viewer: User
) -> None:
    devices = [make_device(f"edge-{n}", make_pipeline_version()) for n in range(3)]
    for number, device in enumerate(devices):
        device.ship(device.page(rows.run(1, rows.START + number), names=[number]))
    versions = [str(device.version.uuid) for device in devices]
    assert ids(read(api(viewer), devices[0], pipeline_version=versions[1:])) == [2, 1]
    response = read(api(viewer), devices[0], pipeline_version=[versions[0], str(uuid.uuid4())])
    assert response.status_code == 404


def test_a_filter_on_a_name_of_two_types_finds_the_rows_of_its_own(
    make_device: Callable[..., Device], api: Api, viewer: User
) -> None:
    number = make_device("number")
    text = make_device("text", number.version)
    number.ship(number.page(rows.run(2), names=[0, 1], outputs={"price": pa.array([1.0, 9.0])}))
    text.ship(text.page(rows.run(2, rows.START + 5), names=[5, 6], outputs={"price": pa.array(["9", "x"])}))
    assert ids(read(api(viewer), number, filter="out.price > 5")) == [1]
    assert ids(read(api(viewer), number, filter="out.price = '9'")) == [5]


def test_doubles_are_not_narrowed_between_edges(make_device: Callable[..., Device], api: Api, viewer: User) -> None:
    """A store that casts one edge's doubles into another's floats answers 0.10000000149011612 and inf here."""
    single = make_device("single")
    double = make_device("double", single.version)
    single.ship(single.page(rows.run(1), outputs={"p": pa.array([[0.5]], pa.list_(pa.float32()))}))
    wide = pa.array([[0.1, 1e300]], pa.list_(pa.float64()))
    double.ship(double.page(rows.run(1, rows.START + 1), outputs={"p": wide}))
    first = read(api(viewer), single)
    assert first.json()[0]["out"]["p"] == [0.1, 1e300]
    told = json.loads(first["X-Log-Status"])
    assert told["status"] == "SchemaChange"
    assert read(api(viewer), single, cursor=told["next"]).json()[0]["out"]["p"] == [0.5]
    assert ids(read(api(viewer), single, filter="out.p > 1e299")) == [0]


def test_more_logs_available_is_told(shops: Device, api: Api, viewer: User) -> None:
    told = json.loads(read(api(viewer), shops, limit=2)["X-Log-Status"])
    assert told["message"].startswith("More logs available")
    assert "message" not in json.loads(read(api(viewer), shops)["X-Log-Status"])


def test_filters_survive_an_address(shops: Device) -> None:
    filters = Filters.parse(
        QueryDict(
            "start=2025-11-21T00:00:00Z&end=1763683200500&edge=a*&edge=b&model=m&anomaly=count&filter=out.p%20%3E%201"
            f"&pipeline_version={uuid.UUID(int=1)}"
        )
    )
    assert filters == Filters(
        start=datetime(2025, 11, 21, tzinfo=UTC),
        end=datetime(2025, 11, 21, 0, 0, 0, 500_000, tzinfo=UTC),
        edges=("a*", "b"),
        models=("m",),
        anomalies=("count",),
        conditions=("out.p > 1",),
        pipeline_versions=(uuid.UUID(int=1),),
    )
    assert Filters.parse(filters.as_query()) == filters


def test_the_newest_page_goes_on_by_its_cursor(shops: Device, viewer: User, stranger: User) -> None:
    pipeline, filters = shops.version.pipeline, Filters(conditions=("out.price > 2",))
    first = queries.newest_page(viewer, pipeline, filters=filters, limit=4)
    assert [row["in"]["id"] for row in first.rows] == [8, 7, 6, 5]
    second = queries.newest_page(viewer, pipeline, filters=filters, cursor=first.next, limit=4)
    assert ([row["in"]["id"] for row in second.rows], second.next) == ([4, 3], None)
    with pytest.raises(Invalid):
        queries.newest_page(viewer, pipeline, cursor="x")


def scanning(stored: list[Stored], **changes: Any) -> tuple[list[merge.Answer], list[int]]:
    """All answers of a query that may look at 3,000 rows (three small pieces) each, and how many pieces each read."""
    pages, answers, reads = Pages(stored), [], []
    query = Query(max_scanned_rows=2999, **changes)
    while True:
        before = sum(page.reads for page in stored)
        answers.append(merge.answer([pages], query))
        reads.append(sum(page.reads for page in stored) - before)
        following = answers[-1].next
        if following is None:
            return answers, reads
        query = dataclasses.replace(query, cursor=following)


@pytest.mark.parametrize("order", Order)
def test_a_scan_is_bounded_and_goes_on(order: Order) -> None:
    stored = [Stored(pk, [10 * pk, 10 * pk + 5]) for pk in range(1, 31)]
    filters = Filters(conditions=("in.id = 12001",))
    answers, reads = scanning(stored, filters=filters, order=order)
    assert max(reads) <= 4  # three, and the one that the cursor stands in
    assert len(answers) > 5
    assert {answer.status for answer in answers[:-1]} == {Status.BYTE_LIMITED}
    assert answers[-1].status is Status.ALL
    assert [row["in"]["id"] for answer in answers if len(answer.table) for row in answer.table.to_pylist()] == [12001]


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_no_row_is_skipped_or_doubled_by_a_bounded_scan(order: Order, limit: int) -> None:
    """Pieces overlap widely and end at the same times, so that a scan stops among rows of one time."""
    stored = [Stored(pk, [(7 * pk + 3 * row) % 20 for row in range(9)]) for pk in range(1, 25)]
    expected = sorted(
        (
            (time, page.pk, row)
            for page in stored
            for row, time in enumerate(page.times)
            if 1000 * page.pk + row >= 5003 and 1000 * page.pk + row < 19002
        ),
        reverse=order is Order.NEWEST_FIRST,
    )
    filters = Filters(conditions=("in.id >= 5003", "in.id < 19002"))
    answers, _ = scanning(stored, filters=filters, order=order, limit=limit)
    found = [row["in"]["id"] for answer in answers if len(answer.table) for row in answer.table.to_pylist()]
    assert found == [1000 * page + row for _, page, row in expected]


def test_pandas_reads_the_answer(shops: Device, api: Api, viewer: User) -> None:
    response = read(api(viewer), shops, filter="out.price > 6", dataset_separator=".", limit=10)
    frame = pd.read_json(io.BytesIO(response.content), orient="records")
    assert list(frame["in.id"]) == [8, 7]
    assert list(frame["out.price"]) == [[8.0], [7.0]]
    assert list(frame["metadata.partition"]) == ["depot-1", "depot-1"]


@pytest.mark.parametrize(
    ("dataset", "exclude", "columns"),
    [
        (["metadata.partition"], ["metadata"], ["time", "metadata.partition"]),
        (["metadata"], ["metadata"], ["time"] + [f"metadata.{field.name}" for field in rows.METADATA]),
        (["*"], ["metadata", "anomaly"], ["time", "in.id", "in.tensor", "out.price"]),
        (["in"], ["in.tensor"], ["time", "in.id"]),
        (["time", "in", "anomaly.count"], ["anomaly"], ["time", "in.id", "in.tensor", "anomaly.count"]),
        (["metadata.elapsed", "metadata.dropped", "metadata.last_model"], [],
         ["time", "metadata.last_model", "metadata.elapsed", "metadata.dropped"]),
    ],
)  # fmt: skip
def test_the_closer_name_of_dataset_and_exclude_decides(
    shops: Device, api: Api, viewer: User, dataset: list[str], exclude: list[str], columns: list[str]
) -> None:
    query = {"dataset": dataset, "dataset_exclude": exclude, "dataset_separator": ".", "limit": 1}
    assert list(read(api(viewer), shops, **query).json()[0]) == columns
