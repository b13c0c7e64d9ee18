"""Logs in the admin console: whether edges may ship any, and how long rows are kept."""

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminRadioSelectWidget

from catalog.models import User
from common.console import ForAdministrators
from logs import observability
from logs.models import LogRetention, ObservabilityChange

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[LogRetention]
    ChangeForm = forms.ModelForm[ObservabilityChange]
else:
    ModelForm = ChangeForm = forms.ModelForm  # not subscriptable at run time


class RetentionForm(ModelForm):
    """Of one pipeline, or of all pipelines of a workspace together."""

    class Meta:
        model = LogRetention
        fields = ("workspace", "pipeline", "days", "rows", "size", "sums_days")

    def clean(self) -> dict[str, Any]:
        """One owner, and limits that are some."""
        given = super().clean() or {}
        if bool(given.get("workspace")) == bool(given.get("pipeline")):
            raise forms.ValidationError(gettext("Choose a workspace or a pipeline: one of the two."))
        for name in ("days", "rows", "size", "sums_days"):
            if given.get(name) is not None and given[name] < 1:
                self.add_error(name, gettext("At least 1; leave it empty for no limit."))
        return given


@admin.register(LogRetention)
class LogRetentionAdmin(ForAdministrators):
    """What is beyond a limit is deleted for good."""

    form = RetentionForm
    list_display = ("kept", "workspace", "pipeline", "days", "rows", "size", "sums_days")
    list_select_related = ("workspace", "pipeline__workspace")
    autocomplete_fields = ("workspace",)

    @admin.display(description=_("Retention of logs"))
    def kept(self, retention: LogRetention) -> str:
        """Of what."""
        return gettext("retention of %(owner)s") % {"owner": retention.pipeline or retention.workspace}


def _environment() -> str:
    return gettext("on") if settings.EDGE_OBSERVABILITY else gettext("off")


def _as_environment() -> str:
    if settings.EDGE_OBSERVABILITY:
        return gettext("As OPSCENTER_EDGE_OBSERVABILITY says, which is on")
    return gettext("As OPSCENTER_EDGE_OBSERVABILITY says, which is off")


class ObservabilityForm(ChangeForm):
    """On, off, or as the environment says."""

    enabled = forms.TypedChoiceField(
        label=_("Edges may send their inference logs to this center"),
        widget=UnfoldAdminRadioSelectWidget,
        coerce={"on": True, "off": False, "environment": None}.get,
        empty_value=None,
    )

    class Meta:
        model = ObservabilityChange
        fields = ("enabled",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast(forms.TypedChoiceField, self.fields["enabled"])
        field.choices = [
            ("on", gettext("On: rows arrive as they are inferred")),
            ("off", gettext("Off: logs are refused, and every edge keeps its rows until this is on again")),
            ("environment", _as_environment()),
        ]
        found = observability.current()
        field.initial = "environment" if found.follows else "on" if found.enabled else "off"


@admin.register(ObservabilityChange)
class ObservabilityAdmin(ForAdministrators):
    """What is in force, and who switched it when."""

    form = ObservabilityForm
    list_display = ("state", "actor", "at")
    list_select_related = ("actor",)
    list_display_links = None
    list_before_template = "admin/observability.html"

    @admin.display(description=_("Switched"))
    def state(self, change: ObservabilityChange) -> str:
        """In words."""
        if change.enabled is None:
            return gettext("as the environment says")
        return gettext("on") if change.enabled else gettext("off")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The history, below what is in force."""
        told = {"in_force": observability.current(), "title": gettext("Observability"), "environment": _environment()}
        return cast(HttpResponse, super().changelist_view(request, (extra_context or {}) | told))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Saved once, then one is back at what is in force."""
        told = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return cast(HttpResponse, super().add_view(request, form_url, (extra_context or {}) | told))

    def save_model(self, request: HttpRequest, obj: ObservabilityChange, form: ObservabilityForm, change: bool) -> None:
        """One rule for the API and this page."""
        now = timezone.now()
        found = observability.switch(actor=cast(User, request.user), enabled=form.cleaned_data["enabled"], now=now)
        if found.change is not None:
            obj.pk, obj.actor, obj.at = found.change.pk, found.change.actor, found.change.at

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What was done is not edited: switch again."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nor forgotten."""
        return False
