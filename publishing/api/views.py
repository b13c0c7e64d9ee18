"""REST of publishing: validate, one query or operation, answer."""

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import queries as catalog
from catalog.models import User
from publishing import jobs, operations, queries
from publishing.api import serializers
from publishing.models import Publish


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> dict[str, Any]:
    """The validated input. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


class Publishes(ListAPIView[Publish]):
    """A pipeline's publishes, newest first."""

    serializer_class = serializers.PublishOut
    queryset = Publish.objects.none()  # only tells the schema of what the ids in the path are

    def get_queryset(self) -> QuerySet[Publish]:
        return queries.publishes_of(catalog.pipeline_for(actor_of(self.request), self.kwargs["pk"]))

    @extend_schema(request=serializers.PublishIn, responses={202: serializers.PublishOut})
    def post(self, request: Request, pk: int) -> Response:
        """Publishes a version. The answer comes at once; read the publish until its status is Published or Error."""
        given = checked(serializers.PublishIn(data=request.data))
        made = operations.publish(
            actor=actor_of(request),
            version=queries.version_to_publish(actor_of(request), pk, given.get("pipeline_version")),
            engine_config=given.get("engine_config"),
            replaces=given.get("replaces", ()),
            packaging=given["packaging"],
            allow_breaking=given["allow_breaking"],
        )
        return Response(serializers.PublishOut(made).data, status=status.HTTP_202_ACCEPTED)


class PublishDetail(APIView):
    @extend_schema(responses=serializers.PublishOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.PublishOut(queries.publish_for(actor_of(request), pk)).data)


class PublishRetry(APIView):
    @extend_schema(request=None, responses={202: serializers.PublishOut})
    def post(self, request: Request, pk: int) -> Response:
        """Sends a failed publish on its way again."""
        actor = actor_of(request)
        again = operations.retry(actor=actor, publish=queries.publish_for(actor, pk))
        return Response(serializers.PublishOut(again).data, status=status.HTTP_202_ACCEPTED)


class PublishCancel(APIView):
    @extend_schema(request=None, responses=serializers.PublishOut)
    def post(self, request: Request, pk: int) -> Response:
        """Stops a publish that waits or runs. It can be tried again."""
        actor = actor_of(request)
        stopped = operations.cancel(actor=actor, publish=queries.publish_for(actor, pk))
        return Response(serializers.PublishOut(stopped).data)


class RegistryCheck(APIView):
    @extend_schema(request=None, responses=serializers.ReportOut)
    def post(self, request: Request) -> Response:
        """Tests the connection: what the registry can do, and what to do where it cannot. Takes seconds."""
        queries.registry_settings_for(actor_of(request))
        report = jobs.check_registry()
        return Response(serializers.ReportOut(report).data)


class Registry(APIView):
    """Where publishes go; for administrators."""

    @extend_schema(responses=serializers.RegistrySettingsOut)
    def get(self, request: Request) -> Response:
        return Response(serializers.RegistrySettingsOut(queries.registry_settings_for(actor_of(request))).data)

    @extend_schema(request=serializers.RegistrySettingsIn, responses=serializers.RegistrySettingsOut)
    def put(self, request: Request) -> Response:
        given = checked(serializers.RegistrySettingsIn(data=request.data))
        changed = operations.change_registry(actor=actor_of(request), **given)
        return Response(serializers.RegistrySettingsOut(changed).data)
