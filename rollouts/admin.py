"""Rollouts in the admin console: to look at. They are made and steered in the dashboard or by REST."""

from django.contrib import admin
from unfold.admin import ModelAdmin

from rollouts.models import Rollout, RolloutEvent


class ReadOnlyAdmin(ModelAdmin):
    def has_add_permission(self, request: object) -> bool:
        return False

    def has_change_permission(self, request: object, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: object, obj: object = None) -> bool:
        return False


@admin.register(Rollout)
class RolloutAdmin(ReadOnlyAdmin):
    list_display = ("id", "publish", "state", "created_by", "created_at", "ended_at")
    list_select_related = ("publish__pipeline_version__pipeline", "created_by")
    list_filter = ("state",)


@admin.register(RolloutEvent)
class RolloutEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "rollout", "kind", "actor")
    list_select_related = ("rollout", "actor")
    list_filter = ("kind",)
