"""`/api/v1/` of logs."""

from django.urls import URLPattern, path

from logs.api import views

urlpatterns: list[URLPattern] = [
    path("pipelines/<int:pk>/logs", views.PipelineLogs.as_view(), name="api-pipeline-logs"),
    path("edges/<uuid:pk>/logs/accounting", views.EdgeAccounting.as_view(), name="api-edge-log-accounting"),
]
