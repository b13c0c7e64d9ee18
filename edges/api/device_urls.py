from django.urls import URLPattern, path

from edges.api import device

urlpatterns: list[URLPattern] = [
    path("join", device.Join.as_view(), name="edge-join"),
    path("token", device.Token.as_view(), name="edge-token"),
    path("checkin", device.Checkin.as_view(), name="edge-checkin"),
]
