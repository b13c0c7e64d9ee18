"""Pages of drift: the assays of a pipeline, what each came to, and the form of a new one."""

import re
from datetime import timedelta

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalog import pages, uploads
from catalog import queries as catalog
from catalog.models import Pipeline, Role
from catalog.pages import SignedInRequest, signed_in
from drift import baselines, charts, forms, operations, queries
from drift.measures import Metric
from drift.models import Assay
from drift.queries import ScorePoint
from logs import aggregates
from logs import queries as logs
from logs.buckets import Asked

SUGGESTED_EDGES = 200
BASELINE = timedelta(days=1)
WINDOW = re.compile(r"[0-9]{1,15}")  # epoch ms
page_or_form = require_http_methods(["GET", "HEAD", "POST"])


@require_safe
@signed_in
def assays(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's assays with the state of each."""
    pipeline = catalog.pipeline_for(request.user, pk)
    page = pages.paged(request, queries.with_newest(queries.assays_for(request.user, pipeline.pk)))
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        assays=page.object_list,
        page=page,
        has_versions=pipeline.versions.exists(),
    )
    return render(request, "drift/assays.html", context)


@csrf_exempt  # see _receive_assay
@page_or_form
@signed_in
def create(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of an assay. "Show the baseline" only draws what it would compare with."""
    catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    uploads.expect_small_file(request, baselines.MAX_BYTES)
    return _receive_assay(request, pk)


@csrf_protect  # reads the body, so it comes after the permission: nobody else's file is held
def _receive_assay(request: SignedInRequest, pk: int) -> HttpResponse:
    pipeline = catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    # The field has whole seconds: the rows of the second that runs are meant too.
    end = timezone.now() + timedelta(seconds=1)
    initial = {"baseline_start": end - BASELINE, "baseline_end": end}
    form = forms.AssayForm(
        queries.models_of(pipeline),
        queries.baselines_for(request.user, pk),
        request.POST or None,
        request.FILES or None,
        initial=initial,
    )
    baseline = None
    if form.is_valid():
        with pages.refusals_on(form):
            _store_upload(request, pipeline, form)
            if "preview" not in request.POST:
                return redirect("drift:assay", _made(request, pipeline, form).pk)
            baseline = operations.preview(actor=request.user, pipeline_pk=pipeline.pk, comparison=form.comparison())
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        form=form,
        baseline=baseline,
        chart=charts.histogram(baseline.edges, baseline.parts) if baseline else None,
        fields=aggregates.fields(request.user, pipeline.pk, Asked(end - 7 * BASELINE, end)),
        edge_names=logs.partitions_of(pipeline, SUGGESTED_EDGES),
    )
    return render(request, "drift/create.html", context, status=422 if form.errors else 200)


@require_safe
@signed_in
def assay(request: SignedInRequest, pk: int) -> HttpResponse:
    """What an assay came to: scores over time, and one window beside the baseline."""
    found = queries.chart_for(request.user, pk)
    window = _window(found, request.GET.get("window", ""), request.GET.get("edge", ""))
    pipeline = found.assay.pipeline
    context = pages.in_workspace(
        request,
        pipeline.workspace,
        pipeline=pipeline,
        assay=found.assay,
        newest=queries.newest_of(found.assay),
        window=window,
        metric=charts.METRIC_NAMES[Metric(found.assay.metric)],
        charts=[charts.scores(found), charts.histogram(found.bin_edges, found.baseline_parts, window)],
        page=pages.paged(request, queries.results_of(found.assay)),
    )
    name = "_assay" if pages.wants_fragment(request) else "assay"
    return render(request, f"drift/{name}.html", context)


@page_or_form
@signed_in
def change(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of what may be changed of an assay."""
    found = queries.assay_for(request.user, pk, Role.COLLABORATOR)
    names = ("name", "alert", "warning", "min_records", "wait", "run_until")
    form = forms.ChangeForm(request.POST or None, initial={name: getattr(found, name) for name in names})
    if form.is_valid():
        with pages.refusals_on(form):
            operations.change(actor=request.user, assay_pk=pk, **form.changes())
            messages.success(request, _("The change counts from the next window on."))
            return redirect("drift:assay", pk)
    context = pages.in_workspace(request, found.pipeline.workspace, pipeline=found.pipeline, assay=found, form=form)
    return render(request, "drift/change.html", context, status=422 if form.errors else 200)


@require_POST
@signed_in
def pause(request: SignedInRequest, pk: int) -> HttpResponse:
    """Scores no more windows until it is resumed."""
    found = operations.pause(actor=request.user, assay_pk=pk)
    messages.success(request, _("%(name)s is paused.") % {"name": found.name})
    return redirect("drift:assay", pk)


@require_POST
@signed_in
def resume(request: SignedInRequest, pk: int) -> HttpResponse:
    """Goes on with the first window that has not ended."""
    found = operations.resume(actor=request.user, assay_pk=pk)
    messages.success(request, _("%(name)s goes on with the next window.") % {"name": found.name})
    return redirect("drift:assay", pk)


@page_or_form
@signed_in
def delete(request: SignedInRequest, pk: int) -> HttpResponse:
    """Asks, with the effect, and deletes an assay with its results."""
    found = queries.assay_for(request.user, pk, Role.COLLABORATOR)
    if request.method == "POST":
        operations.delete(actor=request.user, assay_pk=pk)
        messages.success(request, _("%(name)s and its results are deleted.") % {"name": found.name})
        return redirect("drift:assays", found.pipeline_id)
    count = queries.results_of(found).count()
    context = pages.in_workspace(request, found.pipeline.workspace, pipeline=found.pipeline, assay=found, count=count)
    return pages.ask(request, "drift/_delete.html", context)


def _store_upload(request: SignedInRequest, pipeline: Pipeline, form: forms.AssayForm) -> None:
    """Keeps the file that came with the form, for this assay and others."""
    file = form.cleaned_data["baseline_upload"]
    if file:
        baseline = operations.upload_baseline(
            actor=request.user,
            pipeline_pk=pipeline.pk,
            body=file.read(),
            field=form.cleaned_data["field"],
            name=(file.name or "")[:255],
        )
        form.use_upload(baseline)


def _made(request: SignedInRequest, pipeline: Pipeline, form: forms.AssayForm) -> Assay:
    given = form.cleaned_data
    return operations.create(
        actor=request.user,
        pipeline_pk=pipeline.pk,
        name=given["name"],
        comparison=form.comparison(),
        schedule=form.schedule(),
        alert=given["alert"],
        warning=given["warning"],
        min_records=given["min_records"],
        by_edge=given["by_edge"],
    )


def _window(found: queries.AssayChart, start: str, edge: str) -> ScorePoint | None:
    """The window that was asked for, else the newest one with numbers that is in the chart."""
    if WINDOW.fullmatch(start):
        return queries.window_of(found.assay, int(start), edge)
    return next((point for point in reversed(found.points) if point.parts), None)
