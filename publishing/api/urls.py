"""`/api/v1/` of publishing."""

from django.urls import path

from publishing.api import views

urlpatterns = [
    path("pipelines/<int:pk>/publishes", views.Publishes.as_view(), name="api-publishes"),
    path("publishes/<int:pk>", views.PublishDetail.as_view(), name="api-publish"),
    path("publishes/<int:pk>/retry", views.PublishRetry.as_view(), name="api-publish-retry"),
    path("publishes/<int:pk>/cancel", views.PublishCancel.as_view(), name="api-publish-cancel"),
    path("registry-settings/check", views.RegistryCheck.as_view(), name="api-registry-check"),
    path("registry-settings", views.Registry.as_view(), name="api-registry-settings"),
]
