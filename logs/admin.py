"""Logs in the admin console: how long they are kept."""

from django.contrib import admin
from unfold.admin import ModelAdmin

from logs.models import LogRetention


@admin.register(LogRetention)
class LogRetentionAdmin(ModelAdmin):
    list_display = ("__str__", "days", "rows", "size")
    autocomplete_fields = ("workspace",)
    fields = ("workspace", "pipeline", "days", "rows", "size")
