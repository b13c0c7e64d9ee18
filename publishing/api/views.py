"""REST of publishing: validate, one query or operation, answer."""

from typing import Any, cast

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import queries as catalog
from catalog.models import User
from common.lists import ListByKey
from publishing import jobs, operations, queries
from publishing.api import serializers
from publishing.models import Publish, SigningKey


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> dict[str, Any]:
    """The validated input. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


class Publishes(ListByKey[Publish]):
    """A pipeline's publishes, newest first."""

    serializer_class = serializers.PublishOut
    whole_rows = staticmethod(queries.whole_publishes)
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
            golden=given.get("golden"),
        )
        return Response(serializers.PublishOut(made).data, status=status.HTTP_202_ACCEPTED)


class PublishDetail(APIView):
    @extend_schema(responses=serializers.PublishOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.PublishOut(queries.publish_for(actor_of(request), pk)).data)


class PublishGolden(APIView):
    @extend_schema(responses={(200, "application/json"): OpenApiTypes.OBJECT})
    def get(self, request: Request, pk: int) -> HttpResponse:
        """The golden request that a publish ships, as engines read it."""
        return HttpResponse(queries.golden_for(actor_of(request), pk), content_type="application/json")


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


class SigningKeys(ListAPIView[SigningKey]):
    """Keys that publishes are or were signed with, newest first: their public halves, for whoever verifies."""

    serializer_class = serializers.SigningKeyOut
    queryset = SigningKey.objects.none()

    def get_queryset(self) -> QuerySet[SigningKey]:
        return queries.signing_keys()

    @extend_schema(request=serializers.SigningKeyIn, responses={201: serializers.SigningKeyOut})
    def post(self, request: Request) -> Response:
        """Makes a key, or takes one, and signs with it from now on; for administrators."""
        given = checked(serializers.SigningKeyIn(data=request.data))
        pem = given["private_key"].encode() if given.get("private_key") else None
        made = operations.create_signing_key(
            actor=actor_of(request), name=given["name"], pem=pem, password=given["password"]
        )
        return Response(serializers.SigningKeyOut(made).data, status=status.HTTP_201_CREATED)


class SigningKeyDetail(APIView):
    @extend_schema(responses=serializers.SigningKeyOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.SigningKeyOut(queries.signing_key_for(pk)).data)

    @extend_schema(request=serializers.SigningKeyUse, responses=serializers.SigningKeyOut)
    def patch(self, request: Request, pk: int) -> Response:
        """Signs with this key from now on, or no more; for administrators."""
        wanted = checked(serializers.SigningKeyUse(data=request.data))["active"]
        return Response(
            serializers.SigningKeyOut(operations.use_signing_key(actor=actor_of(request), pk=pk, active=wanted)).data
        )


class SigningKeyPem(APIView):
    @extend_schema(responses={(200, "application/x-pem-file"): str})
    def get(self, request: Request, pk: int) -> HttpResponse:
        """The file for `cosign verify --key`."""
        key = queries.signing_key_for(pk)
        disposition = {"Content-Disposition": f'attachment; filename="{key.name}.pub"'}
        return HttpResponse(key.public_key, content_type="application/x-pem-file", headers=disposition)
