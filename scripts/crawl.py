"""Finds the pages of a running center as people do: by following links, one address of every kind."""

import re
from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import Page

# What a link may lead to that is no page of ours, or a part of one, or ends the session.
ELSEWHERE = ("/api/", "/static/", "/logout", "/v2/", "/admin/search")
NUMBER = re.compile(r"/(?:[0-9]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")
LINKS = """() => [...document.querySelectorAll("a[href], [hx-get]:not(form)")]
    .map((link) => link.getAttribute("href") || link.getAttribute("hx-get"))"""


def log_in(page: Page, url: str, email: str, password: str) -> None:
    """Logs in by the login page. Raises Playwright's `TimeoutError` when that is refused."""
    page.goto(f"{url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector(".workspace-menu")


def kind_of(address: str) -> str:
    """The address without what differs between pages of one kind: `/edges/<uuid>?page=2` is `/edges/0`."""
    return NUMBER.sub("/0", urlsplit(address).path)


def pages(page: Page, url: str, beginnings: tuple[str, ...] = ("/",), skipped: tuple[str, ...] = ()) -> Iterator[str]:
    """Goes to one page of every kind that links lead to, and gives its address while it is open.

    Addresses that begin with one of `skipped` are left out.
    """
    waiting = deque(beginnings)
    seen: set[str] = set()
    while waiting:
        address = waiting.popleft()
        if kind_of(address) in seen:
            continue
        seen.add(kind_of(address))
        page.goto(url + address)
        page.wait_for_load_state("networkidle" if "live" not in address else "load")
        here = urlsplit(page.url).path
        found = page.evaluate(LINKS)
        if kind_of(here) == kind_of(address) or kind_of(here) not in seen:
            seen.add(kind_of(here))
            yield here
        waiting.extend(link for link in found if link.startswith("/") and not link.startswith(ELSEWHERE + skipped))
