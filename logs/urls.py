"""Pages of inference logs."""

from django.urls import path

from logs import accounting_views, export_views, views

app_name = "logs"
urlpatterns = [
    path("pipelines/<int:pk>/logs", views.rows, name="rows"),
    path("pipelines/<int:pk>/logs/charts", views.charts, name="charts"),
    path("pipelines/<int:pk>/logs/exports", export_views.exports, name="exports"),
    path("pipelines/<int:pk>/logs/sources", accounting_views.sources, name="sources"),
    path("edges/<uuid:pk>/logs", accounting_views.edge, name="accounting"),
    path("logs/exports/<uuid:pk>/cancel", export_views.cancel, name="cancel-export"),
    path("logs/exports/<uuid:pk>/delete", export_views.delete, name="delete-export"),
]
