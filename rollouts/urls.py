"""Pages of rollouts."""

from django.urls import path

from rollouts import views

app_name = "rollouts"
urlpatterns = [
    path("pipelines/<int:pk>/rollouts", views.rollouts, name="rollouts"),
    path("pipelines/<int:pk>/rollouts/new", views.create, name="create"),
    path("pipelines/<int:pk>/rollouts/live", views.live, name="live"),
    path("rollouts/<int:pk>", views.rollout, name="rollout"),
    path("rollouts/<int:pk>/events", views.events, name="events"),
    path("rollouts/<int:pk>/pause", views.pause, name="pause"),
    path("rollouts/<int:pk>/resume", views.resume, name="resume"),
    path("rollouts/<int:pk>/abort", views.abort, name="abort"),
]
