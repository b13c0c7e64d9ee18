"""Pages of edges."""

from django.urls import path

from edges import views

app_name = "edges"
urlpatterns = [
    path("pipelines/<int:pk>/edges", views.edges, name="edges"),
    path("pipelines/<int:pk>/edges/add", views.add, name="add"),
    path("publishes/<int:pk>/edges", views.of_publish, name="of-publish"),
    path("edges/<uuid:pk>", views.edge, name="edge"),
    path("edges/<uuid:pk>/reissue", views.reissue, name="reissue"),
    path("edges/<uuid:pk>/ban", views.ban, name="ban"),
    path("edges/<uuid:pk>/unban", views.unban, name="unban"),
    path("edges/<uuid:pk>/remove", views.remove, name="remove"),
]
