"""`/api/v1/` of drift."""

from django.urls import URLPattern, path

from drift.api import views

urlpatterns: list[URLPattern] = [
    path("pipelines/<int:pk>/assays", views.Assays.as_view(), name="api-pipeline-assays"),
    path("pipelines/<int:pk>/assays/preview", views.Preview.as_view(), name="api-pipeline-assay-preview"),
    path("pipelines/<int:pk>/assays/baselines", views.Baselines.as_view(), name="api-pipeline-assay-baselines"),
    path("assays/baselines/<int:pk>", views.BaselineDetail.as_view(), name="api-assay-baseline"),
    path("assays/<int:pk>", views.AssayDetail.as_view(), name="api-assay"),
    path("assays/<int:pk>/pause", views.Pause.as_view(), name="api-assay-pause"),
    path("assays/<int:pk>/resume", views.Resume.as_view(), name="api-assay-resume"),
    path("assays/<int:pk>/results", views.Results.as_view(), name="api-assay-results"),
]
