"""`/api/v1/` of logs."""

from django.urls import URLPattern, path

from logs.api import exports, views

urlpatterns: list[URLPattern] = [
    path("pipelines/<int:pk>/logs", views.PipelineLogs.as_view(), name="api-pipeline-logs"),
    path("edges/<uuid:pk>/logs/accounting", views.EdgeAccounting.as_view(), name="api-edge-log-accounting"),
    path("pipelines/<int:pk>/logs/exports", exports.Exports.as_view(), name="api-log-exports"),
    path("logs/exports/<uuid:pk>", exports.ExportDetail.as_view(), name="api-log-export"),
    path("logs/exports/<uuid:pk>/cancel", exports.ExportCancel.as_view(), name="api-log-export-cancel"),
    path("logs/exports/<uuid:pk>/files/<int:number>", exports.ExportFile.as_view(), name="api-log-export-file"),
]
