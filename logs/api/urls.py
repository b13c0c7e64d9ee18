"""`/api/v1/` of logs."""

from django.urls import URLPattern, path

from logs.api import aggregates, exports, observability, retention, views

urlpatterns: list[URLPattern] = [
    path("observability", observability.ObservabilitySwitch.as_view(), name="api-observability"),
    path("pipelines/<int:pk>/logs", views.PipelineLogs.as_view(), name="api-pipeline-logs"),
    path("pipelines/<int:pk>/logs/gaps", views.PipelineGaps.as_view(), name="api-pipeline-log-gaps"),
    path("pipelines/<int:pk>/logs/sources", views.PipelineSources.as_view(), name="api-pipeline-log-sources"),
    path("pipelines/<int:pk>/logs/series", aggregates.PipelineSeries.as_view(), name="api-pipeline-log-series"),
    path("pipelines/<int:pk>/logs/exact", aggregates.PipelineExact.as_view(), name="api-pipeline-log-exact"),
    path("pipelines/<int:pk>/logs/groups", aggregates.PipelineGroups.as_view(), name="api-pipeline-log-groups"),
    path("pipelines/<int:pk>/logs/fields", aggregates.PipelineFields.as_view(), name="api-pipeline-log-fields"),
    path(
        "pipelines/<int:pk>/logs/distribution",
        aggregates.PipelineDistribution.as_view(),
        name="api-pipeline-log-distribution",
    ),
    path("pipelines/<int:pk>/logs/retention", retention.PipelineRetention.as_view(), name="api-pipeline-log-retention"),
    path(
        "workspaces/<int:pk>/logs/retention", retention.WorkspaceRetention.as_view(), name="api-workspace-log-retention"
    ),
    path("edges/<uuid:pk>/logs/accounting", views.EdgeAccounting.as_view(), name="api-edge-log-accounting"),
    path("pipelines/<int:pk>/logs/exports", exports.Exports.as_view(), name="api-log-exports"),
    path("logs/exports/<uuid:pk>", exports.ExportDetail.as_view(), name="api-log-export"),
    path("logs/exports/<uuid:pk>/cancel", exports.ExportCancel.as_view(), name="api-log-export-cancel"),
    path("logs/exports/<uuid:pk>/files/<int:number>", exports.ExportFile.as_view(), name="api-log-export-file"),
]
