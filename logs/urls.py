"""Pages of inference logs."""

from django.urls import path

from logs import views

app_name = "logs"
urlpatterns = [
    path("pipelines/<int:pk>/logs", views.rows, name="rows"),
    path("pipelines/<int:pk>/logs/charts", views.charts, name="charts"),
]
