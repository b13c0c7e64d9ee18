"""REST of trials."""

from collections.abc import Mapping
from typing import Any, cast

from django.http import HttpResponse
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.views import APIView

from catalog import queries as catalog
from catalog.models import Role, User
from common.errors import TooLarge
from trials import operations


class Body(BaseParser):
    """The request as it would be sent to an edge, of at most `operations.LARGEST_REQUEST` bytes: `{"body"}`."""

    media_type = "*/*"

    def parse(
        self, stream: Any, media_type: str | None = None, context: Mapping[str, Any] | None = None
    ) -> dict[str, bytes]:
        most = operations.LARGEST_REQUEST
        body: bytes = stream.read(most + 1)
        if len(body) > most:
            raise TooLarge(_("A request to try may have at most %(most)s bytes.") % {"most": most}, limit=most)
        return {"body": body}


class Infer(APIView):
    parser_classes = (Body,)

    @extend_schema(
        request={"application/json": OpenApiTypes.OBJECT, "application/vnd.apache.arrow.file": OpenApiTypes.BINARY},
        responses={(200, "application/json"): OpenApiTypes.OBJECT},
    )
    def post(self, request: Request, pk: int) -> HttpResponse:
        """Tries a version, published or not: what its engine answers to these records. Nothing is logged."""
        actor = cast(User, request.user)
        answer = operations.infer(
            actor=actor,
            version=catalog.pipeline_version_for(actor, pk, Role.COLLABORATOR),
            body=cast(dict[str, bytes], request.data).get("body", b""),
            content_type=request.content_type or "application/json",
        )
        return HttpResponse(answer, content_type="application/json")
