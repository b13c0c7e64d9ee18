"""What belongs to no single app in the admin console: API tokens, and how the console is laid out."""

from typing import Any, cast

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from knox.models import AuthToken

from catalog.models import User
from common.console import ForAdministrators, ReadOnly
from opscenter import first_steps

admin.site.unregister(AuthToken)


@admin.register(AuthToken)
class AuthTokenAdmin(ForAdministrators):
    """Who holds tokens for the REST. What is stored of one is a digest, which is not shown either."""

    list_display = ("token_key", "user", "created", "expiry")
    list_select_related = ("user",)
    search_fields = ("user__email", "token_key")
    fields = ("token_key", "user", "created", "expiry")
    readonly_fields = fields
    ordering = ("-created",)

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """A token is made by its owner, who alone is shown it."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Revoked by deleting it, never changed."""
        return False


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The console's first page: how the center stands."""
    user = cast(User, request.user)
    found = first_steps.steps_for(user, None)[:4] if user.is_superuser else []
    return context | {"standing": found, "public_url": settings.PUBLIC_URL, "version": settings.CENTER_VERSION}


def _item(title: str, icon: str, name: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{name}")}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """By what people come for, not by where the code is."""
    return [
        {
            "title": _("Publishing"),
            "items": [
                _item(_("Registry settings"), "database", "publishing_registrysettings_changelist"),
                _item(_("Engine images"), "deployed_code", "publishing_engineimageschange_changelist"),
                _item(_("Signing keys"), "key", "publishing_signingkey_changelist"),
                _item(_("Publishes"), "cloud_upload", "publishing_publish_changelist"),
            ],
        },
        {
            "title": _("Edges"),
            "items": [
                _item(_("Edges"), "dns", "edges_edge_changelist"),
                _item(_("Fleet tokens"), "confirmation_number", "edges_fleettoken_changelist"),
                _item(_("Events of edges"), "history", "edges_edgeevent_changelist"),
                _item(_("Keys of access tokens"), "vpn_key", "edges_signingkey_changelist"),
                _item(_("Rollouts"), "stacks", "rollouts_rollout_changelist"),
                _item(_("Events of rollouts"), "history", "rollouts_rolloutevent_changelist"),
            ],
        },
        {
            "title": _("Logs"),
            "items": [
                _item(_("Observability"), "sensors", "logs_observabilitychange_changelist"),
                _item(_("Retention"), "auto_delete", "logs_logretention_changelist"),
            ],
        },
        {
            "title": _("People"),
            "items": [
                _item(_("Users"), "person", "catalog_user_changelist"),
                _item(_("Workspaces"), "workspaces", "catalog_workspace_changelist"),
                _item(_("API tokens"), "password", "knox_authtoken_changelist"),
                _item(_("What was done here"), "receipt_long", "admin_logentry_changelist"),
            ],
        },
    ]


@admin.register(admin.models.LogEntry)
class LogEntryAdmin(ReadOnly):
    """Who changed what in this console."""

    list_display = ("action_time", "user", "content_type", "object_repr", "action_flag")
    list_select_related = ("user", "content_type")
    list_filter = ("action_flag",)
    search_fields = ("object_repr", "user__email")
