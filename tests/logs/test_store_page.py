"""`POST /edge/v1/logs`: durable when answered, each row once."""

import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from catalog.models import PipelineVersion, User
from edges import operations as edge_operations
from logs import pages
from logs.models import LogMark, LogPage
from tests.conftest import CONTRACT
from tests.logs import rows
from tests.logs.conftest import Device, full_disk

pytestmark = pytest.mark.django_db


def golden(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text(encoding="utf-8"))


def stored() -> list[tuple[int, int]]:
    """First row and rows of every stored page."""
    return list(LogPage.objects.order_by("first").values_list("first", "rows"))


def ids(page: LogPage) -> list[int]:
    return [row["in"]["id"] for row in pages.read(bytes(page.body)).to_pylist()]


def test_page_is_stored_as_it_came_and_acknowledged(device: Device) -> None:
    body = device.page(rows.run(1000))
    response = device.ship(body)
    assert response.status_code == 200, response.content
    assert response.json().keys() == golden("logs.answer.json").keys()
    assert response.json()["acked"] == golden("logs.answer.json")["acked"] == 1000
    page = LogPage.objects.get()
    assert bytes(page.body) == body
    assert (page.edge, page.partition) == (device.edge, "houseprice-edge-01")
    assert (page.pipeline, page.pipeline_version) == (device.version.pipeline, device.version)
    assert (page.epoch, page.first, page.rows, page.size) == (rows.EPOCH, 1, 1000, len(body))
    assert (page.time_min, page.time_max) == (rows.START, rows.START + 999)
    mark = LogMark.objects.get()
    assert (mark.acked, mark.rows, mark.shed) == (1000, 1000, 0)


def test_next_page_takes_few_queries(device: Device, django_assert_max_num_queries: Any) -> None:
    device.ship(device.page(rows.run(10)))
    # Signing key, edge, version; then the transaction: mark, page.
    with django_assert_max_num_queries(7):
        assert device.ship(device.page(rows.run(10)), first=11).json()["acked"] == 20


def test_resent_page_is_answered_and_not_stored_again(device: Device) -> None:
    body = device.page(rows.run(10))
    assert [device.ship(body).json()["acked"] for _ in range(3)] == [10, 10, 10]
    assert stored() == [(1, 10)]
    assert LogMark.objects.get().rows == 10


def test_resent_rows_are_trimmed_from_a_page(device: Device) -> None:
    device.ship(device.page(rows.run(10), names=range(1, 11)))
    response = device.ship(device.page(rows.run(10), names=range(6, 16)), first=6)
    assert response.json()["acked"] == 15
    assert stored() == [(1, 10), (11, 5)]
    trimmed = LogPage.objects.get(first=11)
    assert ids(trimmed) == [11, 12, 13, 14, 15]
    assert trimmed.size == len(trimmed.body)
    assert (trimmed.time_min, trimmed.time_max) == (rows.START + 5, rows.START + 9)


def test_old_rows_are_ignored(device: Device) -> None:
    device.ship(device.page(rows.run(10)))
    assert device.ship(device.page(rows.run(3)), first=4).json()["acked"] == 10
    assert stored() == [(1, 10)]


def test_hole_is_refused_with_the_expected_row(device: Device) -> None:
    device.ship(device.page(rows.run(1000)))
    response = device.ship(device.page(rows.run(10)), first=1200)
    answer = golden("logs.hole.json")
    assert response.status_code == golden("errors.json")["log_hole"] == 409
    assert response.json() | {"server_time": 0} == answer | {"server_time": 0}
    assert stored() == [(1, 1000)]


def test_new_store_begins_at_row_one(device: Device) -> None:
    response = device.ship(device.page(rows.run(10)), first=11)
    assert (response.status_code, response.json()["expected"]) == (409, 1)
    assert not LogMark.objects.exists()


def test_new_epoch_has_a_mark_of_its_own(device: Device) -> None:
    device.ship(device.page(rows.run(10)))
    assert device.ship(device.page(rows.run(4)), epoch=uuid.uuid4()).json()["acked"] == 4
    assert sorted(LogMark.objects.values_list("acked", flat=True)) == [4, 10]
    assert LogPage.objects.count() == 2


def test_edges_have_marks_of_their_own(make_device: Callable[..., Device]) -> None:
    first = make_device("one")
    second = make_device("two", first.version)
    assert [device.ship(device.page(rows.run(5))).json()["acked"] for device in (first, second)] == [5, 5]
    assert set(LogPage.objects.values_list("partition", "rows")) == {("one", 5), ("two", 5)}


def test_partition_is_the_edges_name_whatever_the_body_says(device: Device) -> None:
    device.ship(device.page(rows.run(3), partition="another-edge"))
    page = LogPage.objects.get()
    metadata = [row["metadata"] for row in pages.read(bytes(page.body)).to_pylist()]
    assert {row["partition"] for row in metadata} == {page.partition} == {"houseprice-edge-01"}


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", "text/plain; charset=x"])
def test_content_type_does_not_matter(device: Device, content_type: str) -> None:
    response = device.ship(device.page(rows.run(3)), headers={"CONTENT_TYPE": content_type})
    assert response.status_code == 200, response.content


@pytest.mark.parametrize("body", [b"", b"not a page", rows.page(rows.run(3))[:200]])
def test_other_bytes_are_400(device: Device, body: bytes) -> None:
    response = device.ship(body)
    assert response.status_code == golden("errors.json")["invalid_page"] == 400
    assert response.json()["code"] == "invalid_page"
    assert "server_time" in response.json()
    assert not LogMark.objects.exists()


def test_rows_of_another_pipeline_version_are_400(device: Device) -> None:
    response = device.ship(device.page(rows.run(3), version=uuid.uuid4()))
    assert (response.status_code, response.json()["code"]) == (400, "invalid_page")


def test_version_that_the_edge_was_never_told_to_run_is_403(
    device: Device, make_pipeline_version: Callable[..., PipelineVersion]
) -> None:
    other = make_pipeline_version(name="other").uuid
    response = device.ship(device.page(rows.run(3), version=other), pipeline_version=other)
    assert (response.status_code, response.json()["code"]) == (403, "pipeline_not_assigned")


@pytest.mark.parametrize(
    "changes", [{"first": 0}, {"first": "x"}, {"first": 2**63}, {"epoch": "x"}, {"pipeline_version": "x"}]
)
def test_wrong_parameters_are_400(device: Device, changes: dict[str, Any]) -> None:
    response = device.ship(device.page(rows.run(3)), **changes)
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_more_rows_than_a_page_may_have_are_413(device: Device) -> None:
    response = device.ship(device.page(rows.run(pages.MAX_ROWS + 1)))
    assert response.status_code == golden("errors.json")["page_too_large"] == 413
    assert response.json()["code"] == "page_too_large"
    assert response.json()["limit"] == pages.MAX_ROWS


class Unreadable(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise AssertionError("the body of a request that is too long was read")


def test_long_body_is_413_before_it_is_read(device: Device) -> None:
    response = device.ship(b"", headers={"CONTENT_LENGTH": str(pages.MAX_BYTES + 1), "wsgi.input": Unreadable()})
    assert (response.status_code, response.json()["code"]) == (413, "page_too_large")
    assert response.json()["limit"] == pages.MAX_BYTES


class Endless(io.RawIOBase):
    given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        return bytes(size)


def test_body_in_chunks_is_read_up_to_the_limit(device: Device) -> None:
    endless = Endless()
    chunked = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": endless}
    response = device.ship(b"", headers=chunked)
    assert (response.status_code, response.json()["code"]) == (413, "page_too_large")
    assert endless.given <= pages.MAX_BYTES + 128 * 1024


def test_body_in_chunks_is_stored(device: Device) -> None:
    source = io.BytesIO(device.page(rows.run(3)))
    chunked = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": source}
    assert device.ship(b"", headers=chunked).json()["acked"] == 3


def test_nobody_is_401(device: Device) -> None:
    device.client.credentials()
    response = device.ship(device.page(rows.run(3)))
    assert (response.status_code, response.json()["code"]) == (401, "token_missing")


def test_removed_edge_is_refused_at_once(device: Device, owner: User) -> None:
    device.ship(device.page(rows.run(3)))
    edge_operations.remove_edge(actor=owner, edge=device.edge, now=timezone.now())
    response = device.ship(device.page(rows.run(3)), first=4)
    assert (response.status_code, response.json()["code"]) == (403, "edge_removed")
    assert stored() == [(1, 3)]


def test_full_disk_is_507_and_nothing_is_half_written(device: Device) -> None:
    LogMark.objects.create(edge=device.edge, epoch=rows.EPOCH, updated_at=timezone.now())
    body = device.page(rows.run(9000))
    with full_disk():
        response = device.ship(body)
    assert response.status_code == golden("errors.json")["storage_full"] == 507
    assert response.json()["code"] == "storage_full"
    assert (LogMark.objects.get().acked, stored()) == (0, [])
    assert device.ship(body).json()["acked"] == 9000  # with room again it goes on


@override_settings(DEBUG=True)
def test_refusals_do_not_show_the_token(device: Device) -> None:
    device.client.credentials(HTTP_AUTHORIZATION="Bearer secret-token-of-an-edge")
    assert b"secret-token" not in device.ship(b"").content
