"""REST of edges for people and their scripts: validate, one query or operation, answer."""

from typing import Any, cast
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import Role, User
from common.lists import ListByKey
from edges import operations, queries, states
from edges.api import serializers
from edges.models import Edge, EdgeEvent
from edges.states import State
from publishing import queries as publishing


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> dict[str, Any]:
    """The validated input. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


def bundled(added: operations.Added) -> Response:
    """The one answer that holds the bundle; no cache on the way may keep it."""
    body = serializers.BundledEdgeOut(added.edge, context={"bundle": added.bundle}).data
    return Response(body, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


class PublishEdges(ListByKey[Edge]):
    """The edges that should run a publish."""

    serializer_class = serializers.EdgeOut
    whole_rows = staticmethod(queries.whole_edges)

    def get_queryset(self) -> QuerySet[Edge]:
        actor = actor_of(self.request)
        return queries.edges_for(actor, publish=publishing.publish_for(actor, self.kwargs["pk"]))

    @extend_schema(request=serializers.EdgeIn, responses={201: serializers.BundledEdgeOut})
    def post(self, request: Request, pk: int) -> Response:
        """Adds an edge. Its bundle is in this answer only, and good for 24 hours."""
        publish = publishing.publish_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.EdgeIn(data=request.data))
        return bundled(operations.add_edge(actor=actor_of(request), publish=publish, **given))


class Edges(ListByKey[Edge]):
    """The edges that you may see, by name."""

    serializer_class = serializers.EdgeOut
    whole_rows = staticmethod(queries.whole_edges)

    def get_queryset(self) -> QuerySet[Edge]:
        given = checked(serializers.EdgeFilters(data=self.request.query_params))
        state = given.pop("state", None)
        found = queries.edges_for(actor_of(self.request), **given)
        return found.filter(states.in_state(State(state), timezone.now())) if state else found

    @extend_schema(parameters=[serializers.EdgeFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)


class EdgeDetail(APIView):
    @extend_schema(responses=serializers.EdgeOut)
    def get(self, request: Request, pk: UUID) -> Response:
        """One edge, also when it was removed."""
        return Response(serializers.EdgeOut(queries.edge_for(actor_of(request), pk, removed=True)).data)

    @extend_schema(parameters=[serializers.ReasonIn], responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Removes an edge for good, with a reason in the query if wanted. Its logs and history stay."""
        edge = queries.edge_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.ReasonIn(data=request.query_params))
        operations.remove_edge(actor=actor_of(request), edge=edge, **given)
        return Response(status=status.HTTP_204_NO_CONTENT)


class Reissue(APIView):
    @extend_schema(request=serializers.ReasonIn, responses={201: serializers.BundledEdgeOut})
    def post(self, request: Request, pk: UUID) -> Response:
        """A new bundle for the same edge, in this answer only. Earlier unused bundles end."""
        edge = queries.edge_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.ReasonIn(data=request.data))
        return bundled(operations.reissue_token(actor=actor_of(request), edge=edge, **given))


class Ban(APIView):
    @extend_schema(request=serializers.ReasonIn, responses={200: serializers.EdgeOut})
    def post(self, request: Request, pk: UUID) -> Response:
        """Refuses everything that an edge sends, from its next request on."""
        edge = queries.edge_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.ReasonIn(data=request.data))
        banned = operations.ban_edge(actor=actor_of(request), edge=edge, reason=given["reason"])
        return Response(serializers.EdgeOut(banned).data)


class Unban(APIView):
    @extend_schema(request=serializers.ReasonIn, responses={200: serializers.EdgeOut})
    def post(self, request: Request, pk: UUID) -> Response:
        """Lifts a ban."""
        edge = queries.edge_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.ReasonIn(data=request.data))
        return Response(serializers.EdgeOut(operations.unban_edge(actor=actor_of(request), edge=edge, **given)).data)


class Events(ListAPIView[EdgeEvent]):
    """What happened to an edge, newest first; also after it was removed."""

    serializer_class = serializers.EventOut

    def get_queryset(self) -> QuerySet[EdgeEvent]:
        return queries.events_of(queries.edge_for(actor_of(self.request), self.kwargs["pk"], removed=True))


class Explain(APIView):
    @extend_schema(responses=serializers.ExplanationOut)
    def get(self, request: Request, pk: UUID) -> Response:
        """What an edge should run, what it runs, why they differ, and what to do."""
        edge = queries.edge_for(actor_of(request), pk, removed=True)
        return Response(serializers.ExplanationOut(queries.explanation_of(edge, timezone.now())).data)
