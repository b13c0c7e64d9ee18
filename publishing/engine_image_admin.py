"""Engine images in the admin console: which are in force and from where, changed and looked up."""

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminTextareaWidget

from catalog.models import User
from common.console import ForAdministrators
from common.errors import DomainError
from publishing import engine_image, engine_images, image_checks
from publishing.engine_images import EngineImages
from publishing.models import EngineImagesChange

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[EngineImagesChange]
else:
    ModelForm = forms.ModelForm  # not subscriptable at run time

ENVIRONMENT, THESE = "environment", "these"


class EngineImagesForm(ModelForm):
    """The images that are given here, or those of the environment."""

    source = forms.ChoiceField(label=_("Publishes take"), widget=UnfoldAdminRadioSelectWidget)
    images = forms.CharField(
        label=_("Images"),
        required=False,
        max_length=engine_image.MOST,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5}),
        help_text=_(
            "One reference such as ghcr.io/you/opscenter-engine:1.0, or a line for each architecture: x86=…, arm=…, "
            "x86/cuda=…, default=…. Left empty, publishes take none along."
        ),
    )

    class Meta:
        model = EngineImagesChange
        fields = ("images",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = engine_images.current()
        field = cast(forms.ChoiceField, self.fields["source"])
        named = gettext("What ENGINE_IMAGE says: %(images)s") % {"images": settings.ENGINE_IMAGE or gettext("none")}
        field.choices = [(THESE, gettext("The images below")), (ENVIRONMENT, named)]
        field.initial = ENVIRONMENT if found.follows else THESE
        self.fields["images"].initial = found.text

    def clean_images(self) -> str | None:
        """Refused here, where the field can show why."""
        if self.cleaned_data.get("source") == ENVIRONMENT:
            return None
        try:
            return engine_image.checked(self.cleaned_data["images"])
        except DomainError as exc:
            raise forms.ValidationError(exc.message) from exc

    field_order = ("source", "images")  # so that it is known where they come from when they are checked


@admin.register(EngineImagesChange)
class EngineImagesAdmin(ForAdministrators):
    """What is in force, and who changed it when. What was published keeps its image."""

    form = EngineImagesForm
    fields = ("source", "images")
    list_display = ("given", "actor", "at")
    list_select_related = ("actor",)
    list_display_links = None
    list_before_template = "admin/engine_images.html"

    @admin.display(description=_("Engine images"))
    def given(self, change: EngineImagesChange) -> str:
        """In words."""
        if change.images is None:
            return gettext("as the environment says")
        return change.images or gettext("none")

    def get_urls(self) -> list[URLPattern]:
        """With that of the check."""
        name = "publishing_engineimageschange_check"
        return [path("check/", self.admin_site.admin_view(self.check_images), name=name), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The history, below what is in force."""
        told = {"title": gettext("Engine images"), **_told(engine_images.current())}
        return cast(HttpResponse, super().changelist_view(request, (extra_context or {}) | told))

    def check_images(self, request: HttpRequest) -> HttpResponse:
        """Whether the registries have the images; what was found is told on the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        engine_images.require_administrator(cast(User, request.user))
        try:
            for found in image_checks.check():
                _tell(request, found)
        except DomainError as exc:
            messages.error(request, exc.message)
        return HttpResponseRedirect(reverse("admin:publishing_engineimageschange_changelist"))

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Saved once, then one is back at what is in force."""
        told = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return cast(HttpResponse, super().add_view(request, form_url, (extra_context or {}) | told))

    def save_model(self, request: HttpRequest, obj: EngineImagesChange, form: EngineImagesForm, change: bool) -> None:
        """One rule for the API and this page."""
        found = engine_images.change(
            actor=cast(User, request.user), images=form.cleaned_data["images"], now=timezone.now()
        )
        if found.change is not None:
            obj.pk, obj.actor, obj.at = found.change.pk, found.change.actor, found.change.at

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """What was done is not edited: change them again."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Nor forgotten."""
        return False


def _told(found: EngineImages) -> dict[str, Any]:
    """A setting of the environment may be wrong: nobody checked it when it was given."""
    try:
        return {"in_force": found, "named": found.named, "environment": settings.ENGINE_IMAGE}
    except DomainError as exc:
        return {"in_force": found, "fault": exc.message, "environment": settings.ENGINE_IMAGE}


def _tell(request: HttpRequest, found: image_checks.Found) -> None:
    if found.fault:
        told = {"name": found.name, "image": found.image, "fault": found.fault}
        messages.error(request, gettext("%(name)s: %(image)s cannot be taken along. %(fault)s") % told)
        return
    messages.success(request, _there(found))


def _there(found: image_checks.Found) -> str:
    told = {"name": found.name, "image": found.image, "digest": found.digest, "platforms": ", ".join(found.platforms)}
    if found.platforms:
        return gettext("%(name)s: %(image)s is there for %(platforms)s, %(digest)s.") % told
    return gettext("%(name)s: %(image)s is there, %(digest)s.") % told
