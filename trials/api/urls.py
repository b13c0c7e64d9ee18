"""`/api/v1/` of trials."""

from django.urls import URLPattern, path

from trials.api import views

urlpatterns: list[URLPattern] = [
    path("pipeline-versions/<int:pk>/infer", views.Infer.as_view(), name="api-pipeline-version-infer"),
]
