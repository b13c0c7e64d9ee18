"""`/api/v1/` of rollouts."""

from django.urls import URLPattern, path

from rollouts.api import views

urlpatterns: list[URLPattern] = [
    path("rollouts", views.Rollouts.as_view(), name="api-rollouts"),
    path("rollouts/preview", views.Preview.as_view(), name="api-rollout-preview"),
    path("rollouts/<int:pk>", views.RolloutDetail.as_view(), name="api-rollout"),
    path("rollouts/<int:pk>/members", views.Members.as_view(), name="api-rollout-members"),
    path("rollouts/<int:pk>/events", views.Events.as_view(), name="api-rollout-events"),
    path("rollouts/<int:pk>/pause", views.Pause.as_view(), name="api-rollout-pause"),
    path("rollouts/<int:pk>/resume", views.Resume.as_view(), name="api-rollout-resume"),
    path("rollouts/<int:pk>/abort", views.Abort.as_view(), name="api-rollout-abort"),
]
