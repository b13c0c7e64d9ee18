"""What the pages of all apps share: who asks, in which workspace, and whether a fragment is enough."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from django.contrib.auth.views import redirect_to_login
from django.core.paginator import Page, Paginator
from django.db.models import Model, QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from catalog import queries
from catalog.models import Role, User, Workspace
from common.errors import DomainError

P = ParamSpec("P")
Row = TypeVar("Row", bound=Model)
PAGE_LENGTH = 50
NEWEST = 30  # of a list that has a page of its own, where it is only a part of another page
SESSION_KEY = "workspace"


class SignedInRequest(HttpRequest):
    """A request of somebody."""

    user: User


def signed_in(
    view: Callable[Concatenate[SignedInRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Sends nobody to the login page and back afterwards."""

    @wraps(view)
    def check(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.user.is_authenticated:
            return view(cast(SignedInRequest, request), *args, **kwargs)
        if wants_fragment(request):
            # A redirect would be followed unseen and put the login form inside the page.
            return HttpResponse(headers={"HX-Redirect": reverse("login")})
        # The address of a form's target shows nothing to come back to.
        return redirect_to_login(request.get_full_path() if request.method == "GET" else reverse("home"))

    return check


def wants_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks, which puts the answer into the page that is open."""
    return request.headers.get("HX-Request") == "true"


def in_workspace(request: SignedInRequest, workspace: Workspace, **context: Any) -> dict[str, Any]:
    """The context of a page about a workspace. The header shows it, and it is remembered for the next visit."""
    if request.session.get(SESSION_KEY) != workspace.pk:
        request.session[SESSION_KEY] = workspace.pk
    role = queries.role_in(request.user, workspace)
    return {
        "workspace": workspace,
        "may_edit": role is not None and role.covers(Role.COLLABORATOR),
        "may_own": role is not None and role.covers(Role.OWNER),
        **context,
    }


def paged(request: HttpRequest, rows: QuerySet[Row]) -> Page[Row]:
    """The page of the rows that is asked for, so that a list takes as long with ten thousand as with fifty."""
    return Paginator(rows, PAGE_LENGTH).get_page(request.GET.get("page"))


def newest(rows: QuerySet[Row]) -> Page[Row]:
    """The first of the rows, for a page that leads to all of them."""
    return Paginator(rows, NEWEST).page(1)


def paged_by_id(
    request: HttpRequest, found: QuerySet[Row], whole: QuerySet[Row], count: int | None = None
) -> Page[Row]:
    """As `paged`, for rows that are wide: sorted are only their ids, and those of the page are read from `whole`.

    Sorted whole, ten thousand rows are all carried along. `count` is how many there are, when that is known.
    """
    ids = Paginator(found.values_list("pk", flat=True), PAGE_LENGTH)
    if count is not None:
        ids.count = count
    page = ids.get_page(request.GET.get("page"))
    rows = whole.in_bulk(list(page))
    page.object_list = [rows[pk] for pk in page if pk in rows]  # some may have gone meanwhile
    return page


def remembered_workspace(request: HttpRequest) -> Workspace | None:
    """The workspace that was open last, else the first one; none for somebody who has none."""
    workspaces = queries.workspaces_for(request.user).filter(archived=False)
    return workspaces.filter(pk=request.session.get(SESSION_KEY, 0)).first() or workspaces.first()


@contextmanager
def refusals_on(form: Form, field: str | None = None) -> Iterator[None]:
    """A refusal inside the block becomes an error of the form's field, or of the whole form."""
    try:
        yield
    except DomainError as exc:
        form.add_error(field, exc.message)


def ask(request: HttpRequest, question: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """The fragment `question`: for htmx alone, which shows it in the open page's dialog; else as a page of its own."""
    template = question if wants_fragment(request) else "confirm.html"
    return render(request, template, {**context, "question": question}, status=status)
