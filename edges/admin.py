"""Edges in the admin console: to look at. They are added and removed in the dashboard or by REST."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from edges import signing
from edges.models import Edge, EdgeEvent, FleetToken, SigningKey


class ReadOnlyAdmin(ModelAdmin):
    def has_add_permission(self, request: object) -> bool:
        return False

    def has_change_permission(self, request: object, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: object, obj: object = None) -> bool:
        return False


@admin.register(Edge)
class EdgeAdmin(ReadOnlyAdmin):
    list_display = ("name", "publish", "joined_at", "last_contact", "session_lapses_at", "banned_at", "removed_at")
    list_select_related = ("publish__pipeline_version__pipeline",)
    list_filter = (("banned_at", admin.EmptyFieldListFilter), ("removed_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "id")


@admin.register(EdgeEvent)
class EdgeEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "edge", "kind", "actor")
    list_select_related = ("edge", "actor")
    list_filter = ("kind",)
    search_fields = ("edge__name",)


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnlyAdmin):
    list_display = ("kid", "generation", "created_at")
    # A list of what is shown, so that the private key never is, whatever fields come.
    fields = ("kid", "generation", "created_at")
    actions = ("rotate",)

    @admin.action(description="Sign with a new key from now on (edges notice nothing)")
    def rotate(self, request: HttpRequest, queryset: object) -> None:
        if not request.user.is_superuser:
            raise PermissionDenied("Only an administrator may rotate the signing key.")
        kid = signing.rotate(timezone.now())
        self.message_user(request, f"Access tokens of edges are signed with key {kid} from now on.")


@admin.register(FleetToken)
class FleetTokenAdmin(ReadOnlyAdmin):
    list_display = ("pattern", "publish", "made", "max_edges", "expires_at", "revoked_at")
    list_select_related = ("publish__pipeline_version__pipeline",)
    # A list, so that the digest is not among what is shown.
    fields = ("pattern", "publish", "made", "max_edges", "expires_at", "created_by", "created_at", "revoked_at")
