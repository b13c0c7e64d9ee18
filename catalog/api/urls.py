"""`/api/v1/` of the catalog."""

from django.urls import path

from catalog.api import views

urlpatterns = [
    path("auth/token", views.Login.as_view(), name="api-login"),
    path("me", views.Me.as_view(), name="api-me"),
    path("workspaces", views.Workspaces.as_view(), name="api-workspaces"),
    path("workspaces/<int:pk>", views.WorkspaceDetail.as_view(), name="api-workspace"),
    path("workspaces/<int:pk>/members", views.Members.as_view(), name="api-members"),
    path("workspaces/<int:pk>/members/<uuid:user_id>", views.MemberDetail.as_view(), name="api-member"),
    path("workspaces/<int:pk>/models", views.Models.as_view(), name="api-models"),
    path("workspaces/<int:pk>/pipelines", views.Pipelines.as_view(), name="api-pipelines"),
    path("models/<int:pk>", views.ModelDetail.as_view(), name="api-model"),
    path("models/<int:pk>/versions", views.ModelVersions.as_view(), name="api-model-versions"),
    path("model-versions/<int:pk>", views.ModelVersionDetail.as_view(), name="api-model-version"),
    path("model-versions/<int:pk>/configs", views.ModelConfigs.as_view(), name="api-model-configs"),
    path("pipelines/<int:pk>", views.PipelineDetail.as_view(), name="api-pipeline"),
    path("pipelines/<int:pk>/versions", views.PipelineVersions.as_view(), name="api-pipeline-versions"),
    path("pipeline-versions/<int:pk>", views.PipelineVersionDetail.as_view(), name="api-pipeline-version"),
]
