"""Logs in the admin console: how long rows are kept."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from logs.models import LogRetention

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[LogRetention]
else:
    ModelForm = forms.ModelForm  # not subscriptable at run time


class RetentionForm(ModelForm):
    """Of one pipeline, or of all pipelines of a workspace together."""

    class Meta:
        model = LogRetention
        fields = ("workspace", "pipeline", "days", "rows", "size", "sums_days")

    def clean(self) -> dict[str, Any]:
        """One owner, and limits that are some."""
        given = super().clean() or {}
        if bool(given.get("workspace")) == bool(given.get("pipeline")):
            raise forms.ValidationError("Choose a workspace or a pipeline: one of the two.")
        for name in ("days", "rows", "size", "sums_days"):
            if given.get(name) is not None and given[name] < 1:
                self.add_error(name, "At least 1; leave it empty for no limit.")
        return given


@admin.register(LogRetention)
class LogRetentionAdmin(ModelAdmin):
    form = RetentionForm
    list_display = ("__str__", "workspace", "pipeline", "days", "rows", "size", "sums_days")
    list_select_related = ("workspace", "pipeline__workspace")
    autocomplete_fields = ("workspace",)

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Administrators only: what is beyond a limit is deleted for good."""
        return bool(request.user.is_active and request.user.is_superuser)

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission
