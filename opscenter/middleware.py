"""How pages answer refusals, how browsers may keep them, what the admin may run; the short way of engines' calls."""

from collections.abc import Callable

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import Resolver404, resolve, reverse
from django.utils import translation
from django.utils.cache import patch_cache_control, patch_vary_headers

from common.errors import DomainError
from opscenter import views

DEVICE_API = "/edge/v1/"
# unfold's widgets are Alpine's: it compiles what their attributes say, and sets style attributes. Scripts and styles
# between tags stay forbidden there too. Alpine's build without eval does not know what unfold writes (arrow functions,
# several statements, globals such as localStorage).
ADMIN_POLICY = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF], "style-src-attr": [UNSAFE_INLINE]}


class DeviceCalls:
    """Answers what engines call at once: they have no session, no cookie and no page, and call all the time.

    An address that is none of theirs takes the usual way. What engines are told is English, in all languages.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(DEVICE_API):
            return self.get_response(request)
        try:
            found = resolve(request.path_info)
        except Resolver404:
            return self.get_response(request)
        translation.deactivate()  # the thread keeps that of the page which it answered before
        response: HttpResponse = found.func(request, *found.args, **found.kwargs)
        if isinstance(response, SimpleTemplateResponse):
            response = response.render()
        # Without it the web server would send in chunks.
        response.headers.setdefault("Content-Length", str(len(response.content)))
        return response


class ContentSecurityPolicy(CSPMiddleware):
    """The strict policy of the settings, with what the admin console needs under its addresses only."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        """What the library builds the header from."""
        parts = super().get_policy_parts(request, response, report_only)
        if not report_only and request.path_info.startswith(reverse("admin:index")):
            parts.update = {**(parts.update or {}), **ADMIN_POLICY}
        return parts


class PageAnswers:
    """Turns refusals that a page's view did not handle itself into pages, and marks pages as private."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.get("Content-Type", "").startswith("text/html"):
            # One address answers a page or its fragment; the back button must not show a cached fragment.
            patch_vary_headers(response, ["HX-Request"])
            if not response.has_header("Cache-Control"):
                patch_cache_control(response, private=True, no_cache=True)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """JSON interfaces handle their refusals themselves; what arrives here is a page's."""
        return views.refusal(request, exception) if isinstance(exception, DomainError) else None
