from django.urls import URLPattern, path

from edges.api import calls

urlpatterns: list[URLPattern] = [
    path("join", calls.join, name="edge-join"),
    path("token", calls.token, name="edge-token"),
    path("checkin", calls.checkin, name="edge-checkin"),
    path("desired", calls.desired, name="edge-desired"),
    path("jwks", calls.jwks, name="edge-jwks"),
]
