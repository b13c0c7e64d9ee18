"""Pages of inference logs."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.pages import SignedInRequest, signed_in
from logs import display, forms, queries

SHOWN_ROWS = 50


@require_safe
@signed_in
def rows(request: SignedInRequest, pk: int) -> HttpResponse:
    """The newest rows of a pipeline, of one edge and period when asked for."""
    pipeline = catalog.pipeline_for(request.user, pk)
    form = forms.FilterForm(queries.partitions_of(pipeline), request.GET)
    found: list[display.Row] = []
    if form.is_valid():
        start, end = form.bounds(timezone.now())
        edges = [form.cleaned_data["edge"]] if form.cleaned_data["edge"] else None
        newest = queries.newest_rows(request.user, pipeline, SHOWN_ROWS, edges, start, end)
        found = [display.shown(row) for row in newest]
    if found and request.GET.get("waiting"):
        return HttpResponse(headers={"HX-Refresh": "true"})  # the first rows: the page gets its filters too
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        form=form,
        rows=found,
        is_live=request.GET.get("live") == "1",
        is_full=len(found) == SHOWN_ROWS,
        is_filtered=any(form.data.get(name) for name in form.fields),
    )
    return render(request, "logs/_rows.html" if pages.wants_fragment(request) else "logs/rows.html", context)
