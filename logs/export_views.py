"""Pages of exports: ask for files of rows, see how far they are, fetch them."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from catalog import pages
from catalog import queries as catalog
from catalog.models import Pipeline
from catalog.pages import SignedInRequest, signed_in
from logs import exports as kept
from logs import forms, queries
from logs.asked import Asked

SHOWN = 50
CHOSEN_VERSIONS = 50
SUGGESTED_EDGES = 200
page_or_form = require_http_methods(["GET", "HEAD", "POST"])


@page_or_form
@signed_in
def exports(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's exports with their progress and files, and the form of a new one."""
    pipeline = catalog.pipeline_for(request.user, pk)
    asked = request.method == "POST"
    begun = {"format": forms.ExportForm.base_fields["format"].initial, **request.GET.dict()}
    form = forms.ExportForm(pipeline.versions.all()[:CHOSEN_VERSIONS], request.POST if asked else begun)
    if asked and form.is_valid():
        with pages.refusals_on(form):
            filters = form.filters(timezone.now())
            kept.create_export(
                actor=request.user,
                pipeline_pk=pipeline.pk,
                format=form.cleaned_data["format"],
                asked=Asked(filters=filters),
                data_size_limit=kept.DEFAULT_FILE,
            )
            messages.success(request, _("The export began. Its files are listed here when they are ready."))
            return redirect("logs:exports", pipeline.pk)
    return _page(request, pipeline, form, status=422 if asked else 200)


@require_POST
@signed_in
def cancel(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Stops an export; its finished files stay until they expire."""
    export = kept.cancel_export(actor=request.user, export=kept.export_for(request.user, pk))
    messages.success(request, _("The export is stopped. The files that were finished stay until they expire."))
    return redirect("logs:exports", export.pipeline_id)


@page_or_form
@signed_in
def delete(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Asks, with the effect, and removes an export with its files."""
    export = kept.export_for(request.user, pk)
    if request.method == "POST":
        kept.delete_export(actor=request.user, export=export)
        messages.success(request, _("The export and its files are removed."))
        return redirect("logs:exports", export.pipeline_id)
    context = pages.in_workspace(request, export.pipeline.workspace, pipeline=export.pipeline, export=export)
    return pages.ask(request, "logs/_delete_export.html", context)


def _page(request: SignedInRequest, pipeline: Pipeline, form: forms.ExportForm, status: int) -> HttpResponse:
    found = list(kept.exports_for(request.user, pipeline.pk)[:SHOWN])
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        form=form,
        rows=[(export, round(kept.progress_of(export) * 100)) for export in found],
        is_busy=any(export.status in kept.UNFINISHED for export in found),
        edge_names=queries.partitions_of(pipeline, SUGGESTED_EDGES),
    )
    name = "_exports" if pages.wants_fragment(request) else "exports"
    return render(request, f"logs/{name}.html", context, status=status)
