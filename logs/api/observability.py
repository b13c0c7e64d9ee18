"""REST of the observability switch."""

from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog.models import User
from logs import observability
from logs.observability import Observability


class ObservabilityIn(serializers.Serializer[Any]):
    enabled = serializers.BooleanField(allow_null=True, help_text="null: as the environment says")


class ObservabilityOut(serializers.Serializer[Any]):
    enabled = serializers.BooleanField(help_text="whether logs of edges are taken; while off they wait on the edges")
    decided_by = serializers.ChoiceField(["administrator", "environment"], help_text="who says so")
    changed_at = serializers.DateTimeField(allow_null=True)
    changed_by = serializers.CharField(allow_null=True, help_text="the address of who did; told to administrators")


class ObservabilitySwitch(APIView):
    """Whether edges may ship their logs to this center."""

    @extend_schema(responses=ObservabilityOut)
    def get(self, request: Request) -> Response:
        return _told(request, observability.current())

    @extend_schema(request=ObservabilityIn, responses=ObservabilityOut)
    def put(self, request: Request) -> Response:
        """Switches it; for administrators. Edges notice at their next try, and lose nothing."""
        given = ObservabilityIn(data=request.data)
        given.is_valid(raise_exception=True)
        actor = cast(User, request.user)
        enabled = given.validated_data["enabled"]
        return _told(request, observability.switch(actor=actor, enabled=enabled, now=timezone.now()))


def _told(request: Request, found: Observability) -> Response:
    change = found.change
    answer = {
        "enabled": found.enabled,
        "decided_by": "environment" if found.follows else "administrator",
        "changed_at": change.at if change else None,
        "changed_by": change.actor.email if change and cast(User, request.user).is_superuser else None,
    }
    return Response(ObservabilityOut(answer).data)
