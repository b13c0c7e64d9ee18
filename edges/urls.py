"""Pages of edges."""

from django.urls import path

from edges import fleet_views, views

app_name = "edges"
urlpatterns = [
    path("pipelines/<int:pk>/edges", views.edges, name="edges"),
    path("pipelines/<int:pk>/edges/add", views.add, name="add"),
    path("pipelines/<int:pk>/edges/add-many", fleet_views.add_many, name="add-many"),
    path("pipelines/<int:pk>/fleet-tokens", fleet_views.fleet_tokens, name="fleet-tokens"),
    path("pipelines/<int:pk>/fleet-tokens/new", fleet_views.make_fleet_token, name="make-fleet-token"),
    path("fleet-tokens/<int:pk>/revoke", fleet_views.revoke_fleet_token, name="revoke-fleet-token"),
    path("workspaces/<int:pk>/edges", views.fleet, name="fleet"),
    path("workspaces/<int:pk>/edges/selected", fleet_views.selected, name="selected"),
    path("publishes/<int:pk>/edges", views.of_publish, name="of-publish"),
    path("edges/<uuid:pk>", views.edge, name="edge"),
    path("edges/<uuid:pk>/events", views.events, name="events"),
    path("edges/<uuid:pk>/reissue", views.reissue, name="reissue"),
    path("edges/<uuid:pk>/ban", views.ban, name="ban"),
    path("edges/<uuid:pk>/unban", views.unban, name="unban"),
    path("edges/<uuid:pk>/remove", views.remove, name="remove"),
]
