"""Pages of publishes."""

from django.urls import path

from publishing import views

app_name = "publishing"
urlpatterns = [
    path("pipelines/<int:pk>", views.versions, name="versions"),
    path("pipeline-versions/<int:pk>", views.version, name="version"),
    path("pipeline-versions/<int:pk>/publish", views.publish, name="publish"),
    path("pipeline-versions/<int:pk>/replace", views.replace, name="replace"),
    path("publishes/<int:pk>", views.info, name="info"),
    path("publishes/<int:pk>/cancel", views.cancel, name="cancel"),
    path("publishes/<int:pk>/retry", views.retry, name="retry"),
]
