"""`/edge/v1/` of logs."""

from django.urls import URLPattern, path

from logs.api import device

urlpatterns: list[URLPattern] = [
    path("logs", device.logs, name="edge-logs"),
    path("gaps", device.Gaps.as_view(), name="edge-gaps"),
]
