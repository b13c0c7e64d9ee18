"""Pages of drift."""

from django.urls import path

from drift import views

app_name = "drift"
urlpatterns = [
    path("pipelines/<int:pk>/drift", views.assays, name="assays"),
    path("pipelines/<int:pk>/drift/new", views.create, name="create"),
    path("assays/<int:pk>", views.assay, name="assay"),
    path("assays/<int:pk>/change", views.change, name="change"),
    path("assays/<int:pk>/pause", views.pause, name="pause"),
    path("assays/<int:pk>/resume", views.resume, name="resume"),
    path("assays/<int:pk>/delete", views.delete, name="delete"),
]
