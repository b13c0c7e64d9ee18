"""`/api/v1/` of edges."""

from django.urls import URLPattern, path

from edges.api import fleet, operator

urlpatterns: list[URLPattern] = [
    path("publishes/<int:pk>/edges", operator.PublishEdges.as_view(), name="api-publish-edges"),
    path("publishes/<int:pk>/edges/bulk", fleet.BulkEdges.as_view(), name="api-publish-edges-bulk"),
    path("publishes/<int:pk>/edge-bundles", fleet.EdgeBundles.as_view(), name="api-publish-edge-bundles"),
    path("publishes/<int:pk>/fleet-tokens", fleet.FleetTokens.as_view(), name="api-fleet-tokens"),
    path("fleet-tokens/<int:pk>/revoke", fleet.RevokeFleetToken.as_view(), name="api-fleet-token-revoke"),
    path("fleet/summary", fleet.Summary.as_view(), name="api-fleet-summary"),
    path("pipelines/<int:pk>/publishes/preview", fleet.PublishPreview.as_view(), name="api-publish-preview"),
    path("edges", operator.Edges.as_view(), name="api-edges"),
    path("edges/<uuid:pk>", operator.EdgeDetail.as_view(), name="api-edge"),
    path("edges/<uuid:pk>/reissue", operator.Reissue.as_view(), name="api-edge-reissue"),
    path("edges/<uuid:pk>/ban", operator.Ban.as_view(), name="api-edge-ban"),
    path("edges/<uuid:pk>/unban", operator.Unban.as_view(), name="api-edge-unban"),
    path("edges/<uuid:pk>/events", operator.Events.as_view(), name="api-edge-events"),
    path("edges/<uuid:pk>/explain", operator.Explain.as_view(), name="api-edge-explain"),
]
