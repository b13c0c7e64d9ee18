"""What the header of every page shows."""

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from catalog import pages, queries
from logs import observability

MENU_LENGTH = 50  # more workspaces than this are found on their own page


def header(request: HttpRequest) -> dict[str, Any]:
    """The workspaces to choose from and the one that is open. Read only when a template shows them."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {
        "menu_workspaces": queries.workspaces_for(user).filter(archived=False)[:MENU_LENGTH],
        "is_observability_off": SimpleLazyObject(lambda: not observability.is_on()),
        "workspace": SimpleLazyObject(lambda: pages.remembered_workspace(request)),
    }
