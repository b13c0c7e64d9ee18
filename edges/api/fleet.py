"""REST of many edges at once: validate, one query or operation, answer."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import Role
from common.errors import Invalid, TooLarge
from edges import provisioning, queries
from edges.api import fleet_serializers as serializers
from edges.api.operator import actor_of, checked
from edges.api.serializers import BundledEdgeOut, ReasonIn
from edges.models import FleetToken
from edges.operations import Added
from edges.provisioning import NewEdge
from publishing import operations as publishing_operations
from publishing import queries as publishing

CSV_BYTES = 1024 * 1024
NO_STORE = {"Cache-Control": "no-store"}


class CSVParser(BaseParser):
    """The text of `text/csv`, at most 1 MiB of it."""

    media_type = "text/csv"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        content = stream.read(CSV_BYTES + 1)
        if len(content) > CSV_BYTES:
            raise TooLarge(_("The CSV is larger than %(csv_bytes)s bytes.") % {"csv_bytes": CSV_BYTES}, limit=CSV_BYTES)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise Invalid(_("The CSV must be UTF-8.")) from exc


class BulkEdges(APIView):
    parser_classes = [JSONParser, CSVParser]

    @extend_schema(request=serializers.BulkIn, responses={201: BundledEdgeOut(many=True)})
    def post(self, request: Request, pk: int) -> Response:
        """Adds up to 1,000 edges, all or none: JSON, or `text/csv` with the columns name, tags (by `;`), cpus, memory.

        Their bundles are in this answer only.
        """
        actor = actor_of(request)
        publish = publishing.publish_for(actor, pk, Role.COLLABORATOR)
        added = provisioning.add_edges(actor=actor, publish=publish, edges=_new_edges(request.data))
        return Response([_bundled(edge) for edge in added], status=status.HTTP_201_CREATED, headers=NO_STORE)


class EdgeBundles(APIView):
    @extend_schema(request=serializers.BundlesIn, responses={200: serializers.EdgeBundleOut(many=True)})
    def post(self, request: Request, pk: int) -> Response:
        """The edges of a publish with the commands for their sites, after it replaced another one for example.

        An edge that never joined or whose session is over gets a fresh bundle, in this answer only; earlier unused
        ones of it end.
        """
        actor = actor_of(request)
        given = checked(serializers.BundlesIn(data=request.data))
        publish = publishing.publish_for(actor, pk, Role.COLLABORATOR)
        found = provisioning.bundles_for(actor=actor, publish=publish, **given)
        return Response(serializers.EdgeBundleOut(found, many=True).data, headers=NO_STORE)


class FleetTokens(ListAPIView[FleetToken]):
    """The fleet tokens of a publish."""

    serializer_class = serializers.FleetTokenOut
    queryset = FleetToken.objects.none()

    def get_queryset(self) -> QuerySet[FleetToken]:
        return queries.fleet_tokens_of(publishing.publish_for(actor_of(self.request), self.kwargs["pk"]))

    @extend_schema(request=serializers.FleetTokenIn, responses={201: serializers.BundledFleetTokenOut})
    def post(self, request: Request, pk: int) -> Response:
        """Makes one token with which up to `max_edges` devices add themselves. Its bundle is in this answer only."""
        actor = actor_of(request)
        given = checked(serializers.FleetTokenIn(data=request.data))
        life = timedelta(hours=given.pop("hours"))
        publish = publishing.publish_for(actor, pk, Role.COLLABORATOR)
        made = provisioning.make_fleet_token(actor=actor, publish=publish, life=life, **given)
        body = serializers.BundledFleetTokenOut(made.token, context={"bundle": made.bundle}).data
        return Response(body, status=status.HTTP_201_CREATED, headers=NO_STORE)


class RevokeFleetToken(APIView):
    @extend_schema(request=ReasonIn, responses=serializers.FleetTokenOut)
    def post(self, request: Request, pk: int) -> Response:
        """Lets no device join with it any more; the edges that it made stay."""
        actor = actor_of(request)
        token = queries.fleet_token_for(actor, pk, Role.COLLABORATOR)
        given = checked(ReasonIn(data=request.data))
        revoked = provisioning.revoke_fleet_token(actor=actor, token=token, **given)
        return Response(serializers.FleetTokenOut(revoked).data)


class Summary(APIView):
    @extend_schema(parameters=[serializers.SummaryFilters], responses=serializers.SummaryOut)
    def get(self, request: Request) -> Response:
        """How many of your edges are in which state, and whose session ends soon."""
        given = checked(serializers.SummaryFilters(data=request.query_params))
        hours = given.pop("hours")
        found = queries.summary_for(queries.edges_for(actor_of(request), **given), timezone.now(), hours)
        return Response(serializers.SummaryOut(found).data)


class PublishPreview(APIView):
    @extend_schema(request=serializers.PreviewIn, responses={200: serializers.PreviewOut(many=True)})
    def post(self, request: Request, pk: int) -> Response:
        """What publishing a version would change for the edges and callers of what it replaces. Changes nothing."""
        actor = actor_of(request)
        given = checked(serializers.PreviewIn(data=request.data))
        version = publishing.version_to_publish(actor, pk, given.get("pipeline_version"))
        found = publishing_operations.compared(actor=actor, version=version, replaces=given["replaces"])
        counts = queries.edge_counts_by_publish(one.publish for one in found)
        return Response(serializers.PreviewOut(found, many=True, context={"edges": counts}).data)


def _new_edges(data: Any) -> list[NewEdge]:
    if isinstance(data, str):
        return provisioning.read_csv(data)
    given = {"edges": data} if isinstance(data, list) else data
    return [
        NewEdge(edge["name"], tuple(edge["tags"]), edge["cpus"], edge["memory"])
        for edge in checked(serializers.BulkIn(data=given))["edges"]
    ]


def _bundled(added: Added) -> Any:
    return BundledEdgeOut(added.edge, context={"bundle": added.bundle}).data
