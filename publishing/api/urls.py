"""`/api/v1/` of publishing."""

from django.urls import path

from publishing.api import views

urlpatterns = [
    path("pipelines/<int:pk>/publishes", views.Publishes.as_view(), name="api-publishes"),
    path("publishes/<int:pk>", views.PublishDetail.as_view(), name="api-publish"),
    path("publishes/<int:pk>/retry", views.PublishRetry.as_view(), name="api-publish-retry"),
    path("registry-settings", views.Registry.as_view(), name="api-registry-settings"),
]
