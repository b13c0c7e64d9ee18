"""Pages of inference logs."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import Pipeline, User
from catalog.pages import SignedInRequest, signed_in
from logs import display, forms, queries

SHOWN_ROWS = 50


@require_safe
@signed_in
def rows(request: SignedInRequest, pk: int) -> HttpResponse:
    """The newest rows of a pipeline, of one edge and period when asked for."""
    pipeline = catalog.pipeline_for(request.user, pk)
    form = forms.FilterForm(queries.partitions_of(pipeline), request.GET)
    found = _found(request.user, pipeline, form) if form.is_valid() else []
    if found and request.GET.get("waiting"):
        return HttpResponse(headers={"HX-Refresh": "true"})  # the first rows: the page gets its filters too
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        form=form,
        rows=found,
        is_full=len(found) == SHOWN_ROWS,
        is_live=request.GET.get("live") == "1",
        is_filtered=any(form.data.get(name) for name in form.fields),
    )
    return render(request, "logs/_rows.html" if pages.wants_fragment(request) else "logs/rows.html", context)


def _found(user: User, pipeline: Pipeline, form: forms.FilterForm) -> list[display.Row]:
    start, end = form.bounds(timezone.now())
    edges = [form.cleaned_data["edge"]] if form.cleaned_data["edge"] else None
    return [display.shown(row) for row in queries.newest_rows(user, pipeline, SHOWN_ROWS, edges, start, end)]
