"""REST of the engine images that publishes take along; for administrators."""

import dataclasses
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from publishing import engine_image, engine_images, image_checks
from publishing.api.views import actor_of, checked
from publishing.engine_images import EngineImages


class EngineImagesIn(serializers.Serializer[Any]):
    images = serializers.CharField(
        max_length=engine_image.MOST,
        allow_blank=True,
        allow_null=True,
        help_text="one reference, or arch=reference in lines; empty: none; null: as the environment says",
    )


class EngineImagesOut(serializers.Serializer[Any]):
    images = serializers.CharField(help_text="what later publishes take along; empty: none")
    decided_by = serializers.ChoiceField(["administrator", "environment"], help_text="who says so")
    changed_at = serializers.DateTimeField(allow_null=True)
    changed_by = serializers.CharField(allow_null=True)


class ImageFoundOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="`arch/accel`, `arch` or `default`")
    image = serializers.CharField()
    digest = serializers.CharField(help_text="empty where there is a fault")
    platforms = serializers.ListField(child=serializers.CharField(), help_text="of an index; empty for a single image")
    fault = serializers.CharField(help_text="why it cannot be taken along, and what to do; empty when it can")


class EngineImagesView(APIView):
    @extend_schema(responses=EngineImagesOut)
    def get(self, request: Request) -> Response:
        """Which engine images later publishes take along."""
        engine_images.require_administrator(actor_of(request))
        return _told(engine_images.current())

    @extend_schema(request=EngineImagesIn, responses=EngineImagesOut)
    def put(self, request: Request) -> Response:
        """Changes them. What was published keeps its image."""
        images = checked(EngineImagesIn(data=request.data))["images"]
        return _told(engine_images.change(actor=actor_of(request), images=images, now=timezone.now()))


class EngineImagesCheck(APIView):
    @extend_schema(request=None, responses=ImageFoundOut(many=True))
    def post(self, request: Request) -> Response:
        """Looks each image up in its registry. Takes seconds."""
        engine_images.require_administrator(actor_of(request))
        return Response(ImageFoundOut([dataclasses.asdict(found) for found in image_checks.check()], many=True).data)


def _told(found: EngineImages) -> Response:
    change = found.change
    answer = {
        "images": found.text,
        "decided_by": "environment" if found.follows else "administrator",
        "changed_at": change.at if change else None,
        "changed_by": change.actor.email if change else None,
    }
    return Response(EngineImagesOut(answer).data)
