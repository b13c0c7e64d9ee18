"""Parts of pages of the admin console that more than one app has."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from unfold.admin import ModelAdmin


class ForAdministrators(ModelAdmin):
    """The console is theirs: a permission of Django's gives other staff nothing here, as in the API."""

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Active superusers."""
        return bool(request.user.is_active and request.user.is_superuser)

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission
    has_module_permission = has_view_permission


class ReadOnly(ForAdministrators):
    """To look at: what it shows is made and changed elsewhere."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Never."""
        return False

    has_change_permission = has_delete_permission = has_add_permission


class Confirmed(ModelAdmin):
    """A list with one verb for all of it, `act`, that is asked for on a page of its own before it is done."""

    verb = ""  # the last part of its address
    verb_title: str | Promise = ""
    consequence: str | Promise = ""  # what a person should know before

    def get_urls(self) -> list[URLPattern]:
        """With that of the verb."""
        view = self.admin_site.admin_view(self.confirm)
        return [path(f"{self.verb}/", view, name=self._name(self.verb)), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """With a way to the verb."""
        told = {"verb_title": self.verb_title, "verb_url": reverse(f"admin:{self._name(self.verb)}")}
        answer: HttpResponse = super().changelist_view(request, (extra_context or {}) | told)
        return answer

    def confirm(self, request: HttpRequest) -> HttpResponse:
        """GET asks, POST does it."""
        if not (request.user.is_active and request.user.is_superuser):
            raise PermissionDenied(_("Only an administrator may do this."))
        listed = reverse(f"admin:{self._name('changelist')}")
        if request.method == "POST":
            self.act(request)
            return HttpResponseRedirect(listed)
        told = {"title": self.verb_title, "consequence": self.consequence, "listed": listed, "opts": self.opts}
        return TemplateResponse(request, "admin/confirm.html", {**self.admin_site.each_context(request), **told})

    def act(self, request: HttpRequest) -> None:
        """Does it, records it and says so."""
        raise NotImplementedError

    def _name(self, what: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{what}"
