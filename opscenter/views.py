"""Health of the process, and the pages that belong to no single app."""

from http import HTTPStatus
from urllib.parse import urlencode

from django.contrib.auth.views import LoginView
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from catalog import pages, queries
from catalog.pages import SignedInRequest, signed_in
from common.api import error_body, status_of
from common.errors import DomainError, Forbidden, NotFound, RateLimited
from opscenter import first_steps, overview
from opscenter.forms import LoginForm
from opscenter.logins import LoginThrottle

PROGRAM_PATHS = ("/api/", "/edge/", "/v2/")  # programs ask there, so refusals are JSON
login_form = LoginView.as_view(
    template_name="opscenter/login.html", authentication_form=LoginForm, redirect_authenticated_user=True
)


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while the process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when the database answers too, else 503 with the reason."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as exc:
        return JsonResponse(
            {"status": "unready", "reason": f"The database does not answer: {type(exc).__name__}."}, status=503
        )
    return JsonResponse({"status": "ready"})


@require_safe
@cache_control(public=True, max_age=3600)
def favicon(request: HttpRequest) -> HttpResponse:
    """Where browsers look for the icon of what is no page, such as JSON: it stands where the pages say."""
    return redirect(static("favicon.svg"))


def login(request: HttpRequest) -> HttpResponseBase:
    """The login page. Raises `RateLimited` after too many wrong attempts from one address."""
    if request.method != "POST":
        return login_form(request)
    throttle = LoginThrottle()
    if not throttle.allow_request(request, None):  # type: ignore[arg-type]
        wait = int(throttle.wait() or 1) + 1
        raise RateLimited(
            _("Too many wrong attempts from your address: try again in %(wait)s seconds.") % {"wait": wait},
            retry_after=wait,
        )
    answer = login_form(request)
    if answer.status_code == HTTPStatus.FOUND:
        throttle.forgive()
    return answer


@require_safe
def admin_login(request: HttpRequest) -> HttpResponse:
    """Who comes to the admin console without a login goes to ours. Raises `Forbidden` for who may not go on there."""
    if request.user.is_authenticated and not request.user.is_staff:
        raise Forbidden(_("The admin console is for administrators: ask one, or log in as one."))
    return redirect(f"{reverse('login')}?{urlencode({'next': request.GET.get('next') or reverse('admin:index')})}")


@require_safe
@signed_in
def home(request: SignedInRequest) -> HttpResponse:
    """The pipelines of the workspace that was open last, else the workspaces; in a new center its first steps."""
    if request.user.is_superuser and first_steps.is_untouched():
        return redirect("first-steps")
    workspace = pages.remembered_workspace(request)
    return redirect("pipelines", workspace.pk) if workspace else redirect("catalog:workspaces")


@require_safe
@signed_in
def steps(request: SignedInRequest) -> HttpResponse:
    """What the center still needs before it does its job."""
    workspace = pages.remembered_workspace(request)
    context = {"steps": first_steps.steps_for(request.user, workspace)}
    if workspace:
        context = pages.in_workspace(request, workspace, **context)
    return render(request, "opscenter/first_steps.html", context)


@require_safe
@signed_in
def pipelines(request: SignedInRequest, pk: int) -> HttpResponse:
    """A workspace's pipelines by name, each with how far it came."""
    workspace = queries.workspace_for(request.user, pk)
    page = pages.paged(request, workspace.pipelines.all())
    context = pages.in_workspace(request, workspace, rows=overview.rows_of(page), page=page)
    return render(request, "opscenter/pipelines.html", context)


def refusal(request: HttpRequest, error: DomainError) -> HttpResponse:
    """A refusal as a page, or as a notice in the open page when a fragment was asked for, or as JSON for programs."""
    status = status_of(error)
    if request.path.startswith(PROGRAM_PATHS):
        return JsonResponse(error_body(error), status=status)
    if pages.wants_fragment(request):
        return _notice(error.message, status)
    answer = render(request, "refusal.html", {"message": error.message, "status": status}, status=status)
    if isinstance(error, RateLimited):
        answer["Retry-After"] = str(error.data["retry_after"])
    return answer


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400 of Django's own checks: a host that is not ours, more fields than a form of ours has. Needs no session."""
    message = _("The request cannot be taken as it is: reload the page and send it again.")
    if request.path.startswith(PROGRAM_PATHS):
        return JsonResponse({"code": "invalid", "message": message}, status=400)
    if pages.wants_fragment(request):
        return _notice(message, 400)
    return HttpResponse(render_to_string("400.html", {"message": message}), status=400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403 of Django's own checks."""
    return refusal(request, Forbidden(str(exception) or _("You may not do this.")))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form that did not come from our page, or came after the session ended."""
    return refusal(
        request, Forbidden(_("The form is too old or came from elsewhere: reload the page and send it again."))
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 for an address that does not exist."""
    return refusal(request, NotFound(_("There is nothing at this address.")))


def server_error(request: HttpRequest) -> HttpResponse:
    """500: a fault of ours, which the log tells. Shows nothing that needs the database, which may be the fault."""
    if request.path.startswith(PROGRAM_PATHS):
        message = "The center failed to answer: its log says why."
        return JsonResponse({"code": "internal", "message": message}, status=500)
    if pages.wants_fragment(request):
        return _notice(_("The center failed to answer. Try again; if it happens again, its log says why."), 500)
    return HttpResponse(render_to_string("500.html"), status=500)


def _notice(text: str, status: int) -> HttpResponse:
    # Not into the target that htmx meant: what is there stays as it was.
    headers = {"HX-Retarget": "#toasts", "HX-Reswap": "innerHTML"}
    return HttpResponse(render_to_string("parts/_notice.html", {"text": text}), status=status, headers=headers)
