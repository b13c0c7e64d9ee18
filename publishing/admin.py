"""Publishing in the admin console: the registry's credentials, and what was published, to look at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldBooleanSwitchWidget

from catalog.models import User
from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import doctor, jobs, operations, queries
from publishing.models import Publish, RegistrySettings

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[RegistrySettings]
else:
    ModelForm = forms.ModelForm  # not subscriptable at run time


FIELDS = ("enabled", "registry", "repository", "email", "username", "plain_http", "ca_certificate", "proxy")


class RegistrySettingsForm(ModelForm):
    """The password is only ever taken, never shown: the row comes without it."""

    new_password = forms.CharField(
        label="Password or token",
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text="Left empty, the stored one stays.",
    )
    forget_password = forms.BooleanField(required=False, widget=UnfoldBooleanSwitchWidget)

    class Meta:
        model = RegistrySettings
        fields = FIELDS

    def changes(self) -> dict[str, Any]:
        """What `operations.change_registry` is told."""
        given = {name: self.cleaned_data[name] for name in FIELDS}
        if self.cleaned_data["forget_password"]:
            return given | {"password": ""}
        new = self.cleaned_data["new_password"]
        return given | ({"password": new} if new else {})

    def clean_ca_certificate(self) -> str:
        """Refused here, where the field can show why."""
        text = cast(str, self.cleaned_data["ca_certificate"])
        try:
            operations.check_certificate(text)
        except DomainError as exc:
            raise forms.ValidationError(exc.message) from exc
        return text


STATES = {doctor.OK: "✓", doctor.WARN: "!", doctor.FAIL: "✗"}


def _remedy(check: Mapping[str, str]) -> str:
    return f" {check['remedy']}" if check["remedy"] and check["state"] != doctor.OK else ""


@admin.register(RegistrySettings)
class RegistrySettingsAdmin(ModelAdmin):
    form = RegistrySettingsForm
    readonly_fields = ("password_state", "last_test", "checked_at", "source", "updated_at")
    actions_detail = ("test_connection",)
    fieldsets = (
        (None, {"fields": ("enabled", "registry", "repository")}),
        ("Login", {"fields": ("email", "username", "password_state", "new_password", "forget_password")}),
        ("Connection", {"fields": ("plain_http", "ca_certificate", "proxy")}),
        ("Last test", {"fields": ("last_test", "checked_at")}),
        ("From", {"fields": ("source", "updated_at")}),
    )

    @admin.display(description="Stored password")
    def password_state(self, row: RegistrySettings) -> str:
        """Whether there is one; that is all that is told."""
        state = "set" if getattr(row, "has_password", False) else "none"
        return f"{state}. {queries.password_warning(row)}" if state == "set" else state

    @admin.display(description="Result")
    def last_test(self, row: RegistrySettings) -> str:
        """A line for each check, with what to do."""
        if not row.checks:
            return "not tested yet: press Test connection"
        lines = ((STATES[check["state"]], check["name"], check["said"], _remedy(check)) for check in row.checks)
        return format_html_join("", "<p>{} <strong>{}</strong>: {}{}</p>", lines)

    @action(description="Test connection", url_path="test-connection", permissions=["test_connection"])  # type: ignore[untyped-decorator]  # unfold's own
    def test_connection(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Runs the registry doctor; what it found is then on the page."""
        page = HttpResponseRedirect(reverse("admin:publishing_registrysettings_change", args=[1]))
        try:
            report = jobs.check_registry()
        except (DomainError, UnreadableSecret) as exc:
            messages.error(request, str(exc))
            return page
        faults = sum(check.state == doctor.FAIL for check in report.checks)
        if faults:
            messages.error(request, f"The registry fails {faults} of {len(report.checks)} tests: see below.")
        else:
            messages.success(request, f"The registry passed {len(report.checks)} tests.")
        return page

    def has_test_connection_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """As for the rest of the page."""
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegistrySettings]:
        """The one row, without its password."""
        return queries.registry_rows()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one row at most, so its form is the page."""
        if queries.registry_settings() is None:
            return HttpResponseRedirect(reverse("admin:publishing_registrysettings_add"))
        return HttpResponseRedirect(reverse("admin:publishing_registrysettings_change", args=[1]))

    def save_model(self, request: HttpRequest, obj: RegistrySettings, form: RegistrySettingsForm, change: bool) -> None:
        """One rule for the API and this page."""
        operations.change_registry(actor=cast(User, request.user), **form.changes())
        obj.pk = 1

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Administrators only, as in the API; a permission of Django's gives staff no right here."""
        return bool(request.user.is_active and request.user.is_superuser)

    has_change_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only while there is none."""
        return self.has_view_permission(request) and queries.registry_settings() is None

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Switched off, not deleted."""
        return False


@admin.register(Publish)
class PublishAdmin(ModelAdmin):
    list_display = ("id", "pipeline_version", "status", "created_by", "created_at", "published_at")
    list_filter = ("status",)
    list_select_related = ("pipeline_version__pipeline", "created_by")
    search_fields = ("pipeline_version__pipeline__name", "pipeline_url", "pipeline_digest")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Publishes are made in the dashboard and by the API."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """A publish never changes by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Edges and logs refer to it."""
        return False
