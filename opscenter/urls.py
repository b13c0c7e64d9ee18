"""Every address of the center."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from opscenter import views

api: list[URLPattern | URLResolver] = [
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    path("", include("catalog.api.urls")),
    path("", include("publishing.api.urls")),
    path("", include("edges.api.urls")),
    path("", include("logs.api.urls")),
    path("", include("rollouts.api.urls")),
    path("", include("drift.api.urls")),
    path("", include("trials.api.urls")),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("favicon.ico", views.favicon),
    path("admin/login/", views.admin_login),  # one login page, with one throttle
    path("admin/logout/", LogoutView.as_view()),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api)),
    path("v1/", include("logs.api.topic_urls")),
    path("edge/v1/", include("edges.api.device_urls")),
    path("edge/v1/", include("logs.api.device_urls")),
]
if settings.REGISTRY_ENABLED:
    urlpatterns.append(path("v2/", include("registry.urls")))
urlpatterns += [
    path("", include("opscenter.page_urls")),
    path("", include("catalog.urls")),
    path("", include("publishing.urls")),
    path("", include("edges.urls")),
    path("", include("logs.urls")),
    path("", include("rollouts.urls")),
    path("", include("drift.urls")),
    path("", include("trials.urls")),
]

handler400 = views.bad_request
handler403 = views.forbidden
handler404 = views.not_found
handler500 = views.server_error
