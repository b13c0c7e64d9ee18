"""Publishing in the admin console: the registry's credentials, and what was published, to look at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget, UnfoldBooleanSwitchWidget

from catalog.models import User
from common.console import Confirmed, ForAdministrators, ReadOnly
from common.encryption import UnreadableSecret
from common.errors import DomainError
from publishing import doctor, jobs, operations, queries, signing
from publishing.engine_image_admin import EngineImagesAdmin as EngineImagesAdmin
from publishing.models import Publish, RegistrySettings, SigningKey

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[RegistrySettings]
    KeyForm = forms.ModelForm[SigningKey]
else:
    ModelForm = KeyForm = forms.ModelForm  # not subscriptable at run time


FIELDS = ("enabled", "registry", "repository", "email", "username", "plain_http", "ca_certificate", "proxy")


class RegistrySettingsForm(ModelForm):
    """The password is only ever taken, never shown: the row comes without it."""

    new_password = forms.CharField(
        label=_("Password or token"),
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text=_("Left empty, the stored one stays."),
    )
    forget_password = forms.BooleanField(label=_("Forget password"), required=False, widget=UnfoldBooleanSwitchWidget)

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


def _passed(tests: int) -> str:
    # No center runs one test alone, but languages have more forms than two.
    words = ngettext("The registry passed %(tests)s tests.", "The registry passed %(tests)s tests.", tests)
    return words % {"tests": tests}


@admin.register(RegistrySettings)
class RegistrySettingsAdmin(ForAdministrators):
    form = RegistrySettingsForm
    readonly_fields = ("password_state", "last_test", "checked_at", "source", "updated_at")
    actions_detail = ("test_connection",)
    fieldsets = (
        (None, {"fields": ("enabled", "registry", "repository")}),
        (_("Login"), {"fields": ("email", "username", "password_state", "new_password", "forget_password")}),
        (_("Connection"), {"fields": ("plain_http", "ca_certificate", "proxy")}),
        (_("Last test"), {"fields": ("last_test", "checked_at")}),
        (_("From"), {"fields": ("source", "updated_at")}),
    )

    @admin.display(description=_("Stored password"))
    def password_state(self, row: RegistrySettings) -> str:
        """Whether there is one; that is all that is told."""
        if not getattr(row, "has_password", False):
            return gettext("none")
        return f"{gettext('set')}. {queries.password_warning(row)}"

    @admin.display(description=_("Result"))
    def last_test(self, row: RegistrySettings) -> str:
        """A line for each check, with what to do."""
        if not row.checks:
            return gettext("not tested yet: press Test connection")
        lines = ((STATES[check["state"]], check["name"], check["said"], _remedy(check)) for check in row.checks)
        return format_html_join("", "<p>{} <strong>{}</strong>: {}{}</p>", lines)

    @action(description=_("Test connection"), url_path="test-connection", permissions=["test_connection"])  # type: ignore[untyped-decorator]  # unfold's own
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
            told = {"faults": faults, "tests": len(report.checks)}
            messages.error(request, gettext("The registry fails %(faults)s of %(tests)s tests: see below.") % told)
        else:
            messages.success(request, _passed(len(report.checks)))
        return page

    def has_test_connection_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        """As for the rest of the page."""
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegistrySettings]:
        """The one row, without its password."""
        return queries.registry_rows()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one row at most, so its form is the page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if queries.registry_settings() is None:
            return HttpResponseRedirect(reverse("admin:publishing_registrysettings_add"))
        return HttpResponseRedirect(reverse("admin:publishing_registrysettings_change", args=[1]))

    def save_model(self, request: HttpRequest, obj: RegistrySettings, form: RegistrySettingsForm, change: bool) -> None:
        """One rule for the API and this page."""
        operations.change_registry(actor=cast(User, request.user), **form.changes())
        obj.pk = 1

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Only while there is none."""
        return self.has_view_permission(request) and queries.registry_settings() is None

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Switched off, not deleted."""
        return False


class SigningKeyForm(KeyForm):
    """A key is generated unless one is brought; the private half is only ever taken."""

    private_key_pem = forms.CharField(
        label=_("Private key"),
        required=False,
        strip=False,
        max_length=16 * 1024,
        widget=UnfoldAdminTextareaWidget(attrs={"autocomplete": "off"}),
        help_text=_("ECDSA P-256 in PEM. Left empty, one is generated."),
    )
    password = forms.CharField(
        label=_("Password"),
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text=_("Of the private key, when it has one."),
    )

    class Meta:
        model = SigningKey
        fields = ("name",)

    def clean(self) -> dict[str, Any]:
        """Refused here, where the page can show why."""
        given = super().clean() or {}
        pem = given.get("private_key_pem")
        try:
            given["private"] = signing.imported(pem.encode(), given.get("password", "")) if pem else None
        except DomainError as exc:
            raise forms.ValidationError(exc.message) from exc
        return given


@admin.register(SigningKey)
class SigningKeyAdmin(Confirmed, ForAdministrators):
    list_before_template = "admin/verb.html"
    verb, verb_title = "rotate", _("Rotate the key")
    consequence = _(
        "A new key is generated and signs publishes from now on. The one before is retired: its public half stays, for "
        "what it signed is still to be verified. Edges that require signatures need the new public half too "
        "(COSIGN_PUBLIC_KEY) before they take a publish that it signed."
    )
    list_display = ("name", "active", "fingerprint", "created_at")
    actions = ("use", "retire")
    fields = ("name", "active", "fingerprint", "public_key", "download", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[SigningKey]:
        """Without private halves."""
        return queries.signing_keys()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """A form only to add one; afterwards a key is looked at."""
        return super().get_form(request, obj, change, **kwargs) if change else SigningKeyForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj else ("name", "private_key_pem", "password")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj else ()

    @admin.display(description=_("For cosign verify --key"))
    def download(self, key: SigningKey) -> str:
        """The public half as a file."""
        return format_html('<a href="{}">{}.pub</a>', reverse("api-signing-key-pem", args=[key.pk]), key.name)

    def save_model(self, request: HttpRequest, obj: SigningKey, form: SigningKeyForm, change: bool) -> None:
        """One rule for the API and this page."""
        pem = form.cleaned_data.get("private")
        made = operations.create_signing_key(
            actor=cast(User, request.user), name=form.cleaned_data["name"], pem=pem.encode() if pem else None
        )
        obj.pk = made.pk

    def act(self, request: HttpRequest) -> None:
        """One rule for the API and this page. The name is the second, so that two rotations do not collide."""
        name = f"publishing-{timezone.now():%Y%m%d-%H%M%S}"
        try:
            made = operations.create_signing_key(actor=cast(User, request.user), name=name)
        except DomainError as exc:
            messages.error(request, exc.message)
            return
        self.log_addition(request, made, "Rotated the key.")
        self.message_user(request, gettext("Publishes are signed with %(key)s from now on.") % {"key": made.name})

    @admin.action(description=_("Sign with this key from now on"))
    def use(self, request: HttpRequest, keys: QuerySet[SigningKey]) -> None:
        """One at a time is used."""
        if keys.count() != 1:
            self.message_user(request, gettext("Choose the one key to sign with."), messages.ERROR)
            return
        key = operations.use_signing_key(actor=cast(User, request.user), pk=keys.get().pk, active=True)
        self.log_change(request, key, "Signs with it.")

    @admin.action(description=_("Sign with it no more"))
    def retire(self, request: HttpRequest, keys: QuerySet[SigningKey]) -> None:
        """Its public half stays."""
        for key in keys:
            operations.use_signing_key(actor=cast(User, request.user), pk=key.pk, active=False)
            self.log_change(request, key, "Signs with it no more.")

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What it signed is still to be verified."""
        return False


@admin.register(Publish)
class PublishAdmin(ReadOnly):
    list_display = ("id", "pipeline_version", "status", "created_by", "created_at", "published_at")
    list_filter = ("status",)
    list_select_related = ("pipeline_version__pipeline", "created_by")
    search_fields = ("pipeline_version__pipeline__name", "pipeline_url", "pipeline_digest")
    exclude = ("uploads",)
