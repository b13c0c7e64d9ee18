"""Pages of workspaces, models and pipelines."""

from django.urls import path

from catalog import views

app_name = "catalog"
urlpatterns = [
    path("workspaces", views.workspaces, name="workspaces"),
    path("workspaces/new", views.create_workspace, name="create-workspace"),
    path("workspaces/select", views.select_workspace, name="select-workspace"),
    path("workspaces/<int:pk>/members", views.members, name="members"),
    path("workspaces/<int:pk>/members/<uuid:public_id>/remove", views.remove_member, name="remove-member"),
    path("workspaces/<int:pk>/models", views.models, name="models"),
    path("workspaces/<int:pk>/models/upload", views.upload_model, name="upload-model"),
    path("models/<int:pk>", views.model, name="model"),
    path("model-versions/<int:pk>/configure", views.configure, name="configure"),
    path("workspaces/<int:pk>/pipelines/new", views.create_pipeline, name="create-pipeline"),
    path("pipelines/<int:pk>/versions/new", views.create_version, name="create-version"),
]
