"""REST of workspaces, models and pipelines: validate, one query or operation, answer."""

from typing import Any, cast

from django.contrib.auth import authenticate
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema
from knox.models import AuthToken
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from catalog import operations, queries
from catalog.api import serializers
from catalog.models import Membership, Model, ModelVersion, Pipeline, PipelineVersion, Role, User, Workspace
from catalog.uploads import UploadedModel, expect_model
from common.errors import Invalid, NotAuthenticated, NotFound
from common.lists import ListByKey


def actor_of(request: Request) -> User:
    """Who asks. Authentication has been required before."""
    return cast(User, request.user)


def checked(serializer: Any) -> dict[str, Any]:
    """The validated input. Raises DRF's `ValidationError`."""
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


class Login(APIView):
    """A token for the REST API, by e-mail and password."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = (ScopedRateThrottle,)
    throttle_scope = "login"

    @extend_schema(request=serializers.LoginIn, responses={201: serializers.LoginOut}, auth=[])
    def post(self, request: Request) -> Response:
        given = checked(serializers.LoginIn(data=request.data))
        user = authenticate(request, email=given["email"], password=given["password"])
        if user is None:
            raise NotAuthenticated(gettext("The e-mail address or the password is wrong."))
        _, token = AuthToken.objects.create(user=user)
        answer = serializers.LoginOut({"token": token, "user": user})
        return Response(answer.data, status=status.HTTP_201_CREATED)


class Me(APIView):
    @extend_schema(responses=serializers.UserOut)
    def get(self, request: Request) -> Response:
        return Response(serializers.UserOut(actor_of(request)).data)


class Workspaces(ListAPIView[Workspace]):
    serializer_class = serializers.WorkspaceOut

    def get_queryset(self) -> QuerySet[Workspace]:
        return queries.workspaces_for(actor_of(self.request)).select_related("created_by")

    @extend_schema(request=serializers.WorkspaceIn, responses={201: serializers.WorkspaceOut})
    def post(self, request: Request) -> Response:
        given = checked(serializers.WorkspaceIn(data=request.data))
        workspace = operations.create_workspace(actor=actor_of(request), **given)
        return Response(serializers.WorkspaceOut(workspace).data, status=status.HTTP_201_CREATED)


class WorkspaceDetail(APIView):
    @extend_schema(responses=serializers.WorkspaceOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.WorkspaceOut(queries.workspace_for(actor_of(request), pk)).data)


class Members(ListAPIView[Membership]):
    serializer_class = serializers.MembershipOut

    def get_queryset(self) -> QuerySet[Membership]:
        workspace = queries.workspace_for(actor_of(self.request), self.kwargs["pk"])
        return workspace.memberships.select_related("user").order_by("user__email")

    @extend_schema(request=serializers.MembershipIn, responses={200: serializers.MembershipOut})
    def post(self, request: Request, pk: int) -> Response:
        """Lets a user in, or changes its role."""
        given = checked(serializers.MembershipIn(data=request.data))
        workspace = queries.workspace_for(actor_of(request), pk, Role.OWNER)
        membership = operations.set_member(
            actor=actor_of(request), workspace=workspace, email=given["email"], role=Role(given["role"])
        )
        return Response(serializers.MembershipOut(membership).data)


class MemberDetail(APIView):
    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int, user_id: str) -> Response:
        workspace = queries.workspace_for(actor_of(request), pk)
        membership = workspace.memberships.select_related("user").filter(user__public_id=user_id).first()
        if membership is None:
            raise NotFound(
                gettext("There is no member %(user_id)s in %(workspace)s.")
                % {"user_id": user_id, "workspace": workspace.name}
            )
        operations.remove_member(actor=actor_of(request), workspace=workspace, user=membership.user)
        return Response(status=status.HTTP_204_NO_CONTENT)


class Models(ListAPIView[Model]):
    serializer_class = serializers.ModelOut
    parser_classes = (MultiPartParser,)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Authentication may read the body already, so who handles its file is said before."""
        if request.method == "POST":
            expect_model(request)
        return super().initialize_request(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Model]:
        workspace = queries.workspace_for(actor_of(self.request), self.kwargs["pk"])
        return workspace.models.select_related("created_by")

    @extend_schema(request={"multipart/form-data": serializers.UploadIn}, responses={201: serializers.ModelVersionOut})
    def post(self, request: Request, pk: int) -> Response:
        """Uploads a file as the newest version of a model, which is made when its name is new."""
        workspace = queries.workspace_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.UploadIn(data=request.data))
        file = given.pop("file")
        if not isinstance(file, UploadedModel):
            raise Invalid(gettext("Send the model as a file part named `file`."))
        version = operations.create_model_version(
            actor=actor_of(request), workspace=workspace, upload=file.writer, file_name=file.name or "", **given
        )
        return Response(serializers.ModelVersionOut(version).data, status=status.HTTP_201_CREATED)


class ModelDetail(APIView):
    @extend_schema(responses=serializers.ModelOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.ModelOut(queries.model_for(actor_of(request), pk)).data)


class ModelVersions(ListByKey[ModelVersion]):
    serializer_class = serializers.ModelVersionOut
    whole_rows = staticmethod(queries.whole_model_versions)

    def get_queryset(self) -> QuerySet[ModelVersion]:
        return queries.model_for(actor_of(self.request), self.kwargs["pk"]).versions.all()


class ModelVersionDetail(APIView):
    @extend_schema(responses=serializers.ModelVersionOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.ModelVersionOut(queries.model_version_for(actor_of(request), pk)).data)


class ModelConfigs(APIView):
    @extend_schema(request=serializers.ModelConfigIn, responses={201: serializers.ModelConfigOut})
    def post(self, request: Request, pk: int) -> Response:
        """Says which dataset columns feed the inputs. Pipeline versions made before keep the config they have."""
        version = queries.model_version_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.ModelConfigIn(data=request.data))
        config = operations.configure_model_version(actor=actor_of(request), version=version, **given)
        return Response(serializers.ModelConfigOut(config).data, status=status.HTTP_201_CREATED)


class Pipelines(ListAPIView[Pipeline]):
    serializer_class = serializers.PipelineOut

    def get_queryset(self) -> QuerySet[Pipeline]:
        workspace = queries.workspace_for(actor_of(self.request), self.kwargs["pk"])
        return workspace.pipelines.select_related("created_by")

    @extend_schema(request=serializers.PipelineIn, responses={201: serializers.PipelineOut})
    def post(self, request: Request, pk: int) -> Response:
        workspace = queries.workspace_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.PipelineIn(data=request.data))
        pipeline = operations.create_pipeline(actor=actor_of(request), workspace=workspace, **given)
        return Response(serializers.PipelineOut(pipeline).data, status=status.HTTP_201_CREATED)


class PipelineDetail(APIView):
    @extend_schema(responses=serializers.PipelineOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.PipelineOut(queries.pipeline_for(actor_of(request), pk)).data)


class PipelineVersions(ListByKey[PipelineVersion]):
    serializer_class = serializers.PipelineVersionOut
    whole_rows = staticmethod(queries.whole_pipeline_versions)

    def get_queryset(self) -> QuerySet[PipelineVersion]:
        return queries.pipeline_for(actor_of(self.request), self.kwargs["pk"]).versions.all()

    @extend_schema(request=serializers.PipelineVersionIn, responses={201: serializers.PipelineVersionOut})
    def post(self, request: Request, pk: int) -> Response:
        pipeline = queries.pipeline_for(actor_of(request), pk, Role.COLLABORATOR)
        given = checked(serializers.PipelineVersionIn(data=request.data))
        version = operations.create_pipeline_version(actor=actor_of(request), pipeline=pipeline, **given)
        return Response(serializers.PipelineVersionOut(version).data, status=status.HTTP_201_CREATED)


class PipelineVersionDetail(APIView):
    @extend_schema(responses=serializers.PipelineVersionOut)
    def get(self, request: Request, pk: int) -> Response:
        return Response(serializers.PipelineVersionOut(queries.pipeline_version_for(actor_of(request), pk)).data)
