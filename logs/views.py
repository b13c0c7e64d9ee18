"""Pages of inference logs: the rows, and charts of what they amount to."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import Pipeline
from catalog.pages import SignedInRequest, signed_in
from logs import charts as drawn
from logs import display, forms, queries
from logs.queries import NewestRows

SHOWN_ROWS = 50
SUGGESTED_EDGES = 200  # of a large fleet nobody scrolls through all names
CHOSEN_VERSIONS = 50


@require_safe
@signed_in
def rows(request: SignedInRequest, pk: int) -> HttpResponse:
    """The newest rows of a pipeline, or what comes after them, of those that were asked for."""
    pipeline = catalog.pipeline_for(request.user, pk)
    form, found = forms.FilterForm(pipeline.versions.all()[:CHOSEN_VERSIONS], request.GET), NewestRows([], None)
    cursor = request.GET.get("cursor") or None
    if form.is_valid():
        with pages.refusals_on(form):
            filters = form.filters(timezone.now())
            found = queries.newest_page(request.user, pipeline, filters=filters, cursor=cursor, limit=SHOWN_ROWS)
    if found.rows and request.GET.get("waiting"):
        return HttpResponse(headers={"HX-Refresh": "true"})  # the first rows: the page gets its filters too
    context = _context(request, pipeline, form) | {
        "rows": [display.shown(row) for row in found.rows],
        "next": found.next,
        "cursor": cursor,
        "is_live": request.GET.get("live") == "1" and not cursor,
        "checks": _checks(found),
    }
    return render(request, "logs/_rows.html" if pages.wants_fragment(request) else "logs/rows.html", context)


@require_safe
@signed_in
def charts(request: SignedInRequest, pk: int) -> HttpResponse:
    """Requests, latency, failed validations and distributions over time."""
    pipeline = catalog.pipeline_for(request.user, pk)
    form, board = forms.ChartForm(pipeline.versions.all()[:CHOSEN_VERSIONS], request.GET), None
    if form.is_valid():
        with pages.refusals_on(form):
            asked = form.asked(timezone.now())
            board = drawn.board(request.user, pipeline.pk, asked, form.cleaned_data["field"])
    context = _context(request, pipeline, form) | {"board": board, "is_live": request.GET.get("live") == "1"}
    return render(request, "logs/_charts.html" if pages.wants_fragment(request) else "logs/charts.html", context)


def _context(request: SignedInRequest, pipeline: Pipeline, form: forms.FilterForm | forms.ChartForm) -> dict[str, Any]:
    return pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        form=form,
        edge_names=queries.partitions_of(pipeline, SUGGESTED_EDGES),
        is_filtered=form.is_narrowed,
    )


def _checks(found: NewestRows) -> list[str]:
    """The validations that the rows had, to be chosen."""
    return sorted({name for row in found.rows for name in row["anomaly"] or {} if name != forms.COUNT})
