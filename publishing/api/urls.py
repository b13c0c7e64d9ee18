"""`/api/v1/` of publishing."""

from django.urls import path

from publishing.api import engine_images, views

urlpatterns = [
    path("pipelines/<int:pk>/publishes", views.Publishes.as_view(), name="api-publishes"),
    path("publishes/<int:pk>", views.PublishDetail.as_view(), name="api-publish"),
    path("publishes/<int:pk>/golden", views.PublishGolden.as_view(), name="api-publish-golden"),
    path("publishes/<int:pk>/retry", views.PublishRetry.as_view(), name="api-publish-retry"),
    path("publishes/<int:pk>/cancel", views.PublishCancel.as_view(), name="api-publish-cancel"),
    path("registry-settings/check", views.RegistryCheck.as_view(), name="api-registry-check"),
    path("engine-images", engine_images.EngineImagesView.as_view(), name="api-engine-images"),
    path("engine-images/check", engine_images.EngineImagesCheck.as_view(), name="api-engine-images-check"),
    path("signing-keys", views.SigningKeys.as_view(), name="api-signing-keys"),
    path("signing-keys/<int:pk>", views.SigningKeyDetail.as_view(), name="api-signing-key"),
    path("signing-keys/<int:pk>/public.pem", views.SigningKeyPem.as_view(), name="api-signing-key-pem"),
    path("registry-settings", views.Registry.as_view(), name="api-registry-settings"),
]
