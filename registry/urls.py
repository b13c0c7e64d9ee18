"""Mounted at `v2/` of the center's origin: clients of a registry accept no other prefix."""

from django.urls import path, re_path

from registry import views

app_name = "registry"

# A repository's name has slashes; what follows its last keyword is the reference. Names are checked in the views, to be
# refused in the protocol's form.
urlpatterns = [
    path("", views.version, name="version"),
    re_path(r"^(?P<name>.+)/blobs/uploads/?$", views.upload_start, name="upload-start"),
    re_path(r"^(?P<name>.+)/blobs/uploads/(?P<upload_id>[^/]+)$", views.upload, name="upload"),
    re_path(r"^(?P<name>.+)/blobs/(?P<digest>[^/]+)$", views.blob, name="blob"),
    re_path(r"^(?P<name>.+)/manifests/(?P<reference>[^/]+)$", views.manifest, name="manifest"),
    re_path(r"^(?P<name>.+)/tags/list$", views.tag_list, name="tag-list"),
    re_path(r"^(?P<name>.+)/referrers/(?P<digest>[^/]+)$", views.referrer_list, name="referrer-list"),
    re_path(r"", views.nowhere, name="nowhere"),
]
