"""Rollouts in the admin console: to look at. They are made and steered in the dashboard or by REST."""

from django.contrib import admin

from common.console import ReadOnly
from rollouts.models import Rollout, RolloutEvent


@admin.register(Rollout)
class RolloutAdmin(ReadOnly):
    list_display = ("id", "publish", "state", "created_by", "created_at", "ended_at")
    list_select_related = ("publish__pipeline_version__pipeline", "created_by")
    list_filter = ("state",)


@admin.register(RolloutEvent)
class RolloutEventAdmin(ReadOnly):
    list_display = ("at", "rollout", "kind", "actor")
    list_select_related = ("rollout", "actor")
    list_filter = ("kind",)
