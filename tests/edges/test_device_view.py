"""What `DeviceView` gives to views of other apps, tried with a view that takes any bytes."""

import io
from typing import Any

import pytest
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory

from catalog.models import User
from edges.api.device import DeviceView, edge_of
from edges.errors import PipelineNotAssigned, TokenMissing
from edges.models import Edge
from tests.edges.conftest import Device


class Pages(DeviceView):
    max_body = 8

    def post(self, request: Request) -> Response:
        body = self.raw_body(request)
        if body == b"refuse":
            raise PipelineNotAssigned("No.", extra=7)
        return Response({"edge": str(edge_of(request).pk), "size": len(body)})


def post(device: Device, body: bytes, **headers: Any) -> Any:
    request = APIRequestFactory().post(
        "/", body, content_type="application/vnd.apache.arrow.stream", **device.client._credentials, **headers
    )
    return Pages.as_view()(request)


def test_any_bytes_up_to_the_limit_reach_the_view(device: Device, edge: Edge) -> None:
    answer = post(device, b"\x00" * 8)

    assert (answer.status_code, answer.data["edge"], answer.data["size"]) == (200, str(edge.pk), 8)
    assert "server_time" in answer.data


def test_more_bytes_are_refused(device: Device) -> None:
    answer = post(device, b"\x00" * 9)

    assert (answer.status_code, answer.data["code"], answer.data["limit"]) == (413, "page_too_large", 8)


def test_body_that_breaks_off_is_refused(device: Device) -> None:
    answer = post(device, b"1234567", **{"wsgi.input": io.BytesIO(b"1234")})

    assert (answer.status_code, answer.data["code"]) == (400, "invalid")


def test_refusals_of_the_view_keep_their_code_and_data(device: Device) -> None:
    answer = post(device, b"refuse")

    assert (answer.status_code, answer.data["code"], answer.data["extra"]) == (403, "pipeline_not_assigned", 7)
    assert "server_time" in answer.data


def test_person_is_never_taken_for_an_edge(owner: User) -> None:
    request = Request(APIRequestFactory().get("/"))
    request.user = owner
    with pytest.raises(TokenMissing):
        edge_of(request)


def test_admin_shows_edges_and_no_private_key(device: Device, edge: Edge, browser: Any, owner: User) -> None:
    owner.is_staff = owner.is_superuser = True
    owner.save()
    client = browser(owner)
    for name in ("edge", "edgeevent", "signingkey"):
        assert client.get(f"/admin/edges/{name}/").status_code == 200
        assert client.get(f"/admin/edges/{name}/add/").status_code == 403
    shown = client.get("/admin/edges/signingkey/1/change/").content.decode()
    assert "PRIVATE KEY" not in shown
    assert "Private key" not in shown
    assert client.get(f"/admin/edges/edge/{edge.pk}/change/").status_code == 200


def test_session_cookie_needs_no_csrf_token_and_opens_nothing(owner: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(owner)

    assert client.post("/edge/v1/checkin", {}).status_code == 401
