"""Edges in the admin console: to look at. They are added and removed in the dashboard or by REST."""

from django.contrib import admin
from unfold.admin import ModelAdmin

from edges.models import Edge, EdgeEvent, SigningKey


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
