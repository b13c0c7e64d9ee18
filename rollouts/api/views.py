"""REST of rollouts: validate, one query or operation, answer."""

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from common.lists import ListByKey
from rollouts import operations, queries
from rollouts.api import serializers
from rollouts.models import Rollout, RolloutEvent, RolloutMember
from rollouts.plans import Strategy


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> dict[str, Any]:
    """The validated input. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


def asked(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `operations.create` and `operations.preview`."""
    publish, replaces = given.pop("publish"), given.pop("replaces")
    return {"publish": publish, "replaces": replaces, "strategy": Strategy(**given)}


def detail(rollout: Rollout, code: int = status.HTTP_200_OK) -> Response:
    """A rollout with its counts."""
    return Response(serializers.RolloutDetailOut(rollout).data, status=code)


class Rollouts(ListByKey[Rollout]):
    """The rollouts that you may see, newest first."""

    serializer_class = serializers.RolloutOut
    whole_rows = staticmethod(queries.whole_rollouts)

    def get_queryset(self) -> QuerySet[Rollout]:
        return queries.rollouts_for(actor_of(self.request))

    @extend_schema(request=serializers.RolloutIn, responses={201: serializers.RolloutDetailOut})
    def post(self, request: Request) -> Response:
        """Moves the edges of some publishes to another one, group by group. It begins at once."""
        given = checked(serializers.RolloutIn(data=request.data))
        return detail(operations.create(actor=actor_of(request), **asked(given)), status.HTTP_201_CREATED)


class Preview(APIView):
    @extend_schema(request=serializers.RolloutPreviewIn, responses=serializers.PlanOut)
    def post(self, request: Request) -> Response:
        """What a rollout would do, with the bytes that each edge must fetch. Nothing is made."""
        given = checked(serializers.RolloutPreviewIn(data=request.data))
        context = {"link_mbps": given.pop("link_mbps"), "healthy_seconds": given["healthy_seconds"]}
        plan = operations.preview(actor=actor_of(request), **asked(given))
        return Response(serializers.PlanOut(plan, context=context).data)


class RolloutDetail(APIView):
    @extend_schema(responses=serializers.RolloutDetailOut)
    def get(self, request: Request, pk: int) -> Response:
        """One rollout, with its edges counted by bucket and group."""
        return detail(queries.rollout_for(actor_of(request), pk))


class Pause(APIView):
    @extend_schema(request=serializers.RolloutReasonIn, responses=serializers.RolloutDetailOut)
    def post(self, request: Request, pk: int) -> Response:
        """Moves no further edge until it is resumed."""
        rollout = queries.rollout_for(actor_of(request), pk)
        given = checked(serializers.RolloutReasonIn(data=request.data))
        return detail(operations.pause(actor=actor_of(request), rollout=rollout, **given))


class Resume(APIView):
    @extend_schema(request=None, responses=serializers.RolloutDetailOut)
    def post(self, request: Request, pk: int) -> Response:
        """Goes on. Failures until now are forgiven."""
        rollout = queries.rollout_for(actor_of(request), pk)
        return detail(operations.resume(actor=actor_of(request), rollout=rollout))


class Abort(APIView):
    @extend_schema(request=serializers.AbortIn, responses=serializers.RolloutDetailOut)
    def post(self, request: Request, pk: int) -> Response:
        """Stops for good: edges that did not prove the target go back, with `rollback` all of them."""
        rollout = queries.rollout_for(actor_of(request), pk)
        given = checked(serializers.AbortIn(data=request.data))
        return detail(operations.abort(actor=actor_of(request), rollout=rollout, **given))


class Members(ListAPIView[RolloutMember]):
    """A rollout's edges in the order in which they are reached."""

    serializer_class = serializers.MemberOut
    queryset = RolloutMember.objects.none()  # for the schema, which asks nobody

    def get_queryset(self) -> QuerySet[RolloutMember]:
        rollout = queries.rollout_for(actor_of(self.request), self.kwargs["pk"])
        given = checked(serializers.MemberFilters(data=self.request.query_params))
        return queries.members_of(rollout, given.get("bucket", ""), given.get("group"))

    @extend_schema(parameters=[serializers.MemberFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)


class Events(ListAPIView[RolloutEvent]):
    """What happened to a rollout, newest first."""

    serializer_class = serializers.RolloutEventOut
    queryset = RolloutEvent.objects.none()  # for the schema, which asks nobody

    def get_queryset(self) -> QuerySet[RolloutEvent]:
        return queries.events_of(queries.rollout_for(actor_of(self.request), self.kwargs["pk"]))
