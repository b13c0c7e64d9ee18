"""Edges in the admin console: to look at. They are added and removed in the dashboard or by REST."""

from django.contrib import admin
from django.db.models import Max, QuerySet, Value
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from common.console import Confirmed, ReadOnly
from edges import signing
from edges.models import Edge, EdgeEvent, FleetToken, SigningKey


@admin.register(Edge)
class EdgeAdmin(ReadOnly):
    list_display = ("name", "publish", "joined_at", "last_contact", "session_lapses_at", "banned_at", "removed_at")
    list_select_related = ("publish__pipeline_version__pipeline",)
    list_filter = (("banned_at", admin.EmptyFieldListFilter), ("removed_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "id")


@admin.register(EdgeEvent)
class EdgeEventAdmin(ReadOnly):
    list_display = ("at", "edge", "kind", "actor")
    list_select_related = ("edge", "actor")
    list_filter = ("kind",)
    search_fields = ("edge__name",)


@admin.register(SigningKey)
class SigningKeyAdmin(Confirmed, ReadOnly):
    list_display = ("kid", "state", "created_at")
    list_before_template = "admin/verb.html"
    # A list of what is shown, so that the private key never is, whatever fields come.
    fields = ("kid", "state", "generation", "created_at", "public_keys")
    readonly_fields = ("state", "public_keys")
    verb, verb_title = "rotate", _("Rotate the key")
    consequence = _(
        "A new key is made and signs the access tokens of edges from now on. The one before verifies until the last "
        "token that it signed has ended, then it is deleted. Edges notice nothing."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[SigningKey]:
        """Without private halves, and with what the newest generation is."""
        newest = SigningKey.objects.aggregate(newest=Max("generation"))["newest"] or 0
        return SigningKey.objects.defer("private_key").annotate(newest=Value(newest))

    @admin.display(description=_("State"))
    def state(self, key: SigningKey) -> str:
        """The newest key signs."""
        return gettext("signs") if key.generation == getattr(key, "newest", None) else gettext("retired, verifies")

    @admin.display(description=_("Public halves"))
    def public_keys(self, key: SigningKey) -> str:
        """Of all that verify, as JWKs."""
        return format_html('<a href="{}">{}</a>', reverse("edge-jwks"), "JWKS")

    def act(self, request: HttpRequest) -> None:
        """One rule for the command and this page."""
        kid = signing.rotate(timezone.now())
        self.log_addition(request, SigningKey.objects.defer("private_key").get(kid=kid), "Rotated the key.")
        told = gettext("Access tokens of edges are signed with key %(key)s from now on.") % {"key": kid}
        self.message_user(request, told)


@admin.register(FleetToken)
class FleetTokenAdmin(ReadOnly):
    list_display = ("pattern", "publish", "made", "max_edges", "expires_at", "revoked_at")
    list_select_related = ("publish__pipeline_version__pipeline",)
    # A list, so that the digest is not among what is shown.
    fields = ("pattern", "publish", "made", "max_edges", "expires_at", "created_by", "created_at", "revoked_at")
