"""Pages of edges: the list of a pipeline, one edge, and what people do with them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.cache import cache
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import Role, Workspace
from catalog.pages import SignedInRequest, signed_in
from edges import forms, handouts, health, operations, queries, states
from edges.models import Edge
from edges.states import State
from publishing import queries as publishing

LAPSING_NAMED = 5
NAMED = 10  # edges of a publish, before the rest are only counted
LARGE_FLEET, SUMMARY_SECONDS = 1000, 5  # so long the page itself waits before it asks again
LAPSE_HOURS = states.LAPSING / timedelta(hours=1)
page_or_form = require_http_methods(["GET", "HEAD", "POST"])


@require_safe
@signed_in
def edges(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's edges: what each should run beside what it proved that it serves."""
    pipeline = catalog.pipeline_for(request.user, pk)
    context = _listed(request, pipeline.workspace, queries.edges_for(request.user, pipeline=pipeline), f"pipeline.{pk}")
    context |= {"pipeline": pipeline, "can_add": queries.publishes_to_run(pipeline).exists()}
    return render(request, "edges/_edges.html" if pages.wants_fragment(request) else "edges/edges.html", context)


@require_safe
@signed_in
def fleet(request: SignedInRequest, pk: int) -> HttpResponse:
    """The edges of all pipelines of a workspace."""
    workspace = catalog.workspace_for(request.user, pk)
    context = _listed(request, workspace, queries.edges_for(request.user, workspace=workspace), f"workspace.{pk}")
    return render(request, "edges/_edges.html" if pages.wants_fragment(request) else "edges/fleet.html", context)


@require_safe
@signed_in
def of_publish(request: SignedInRequest, pk: int) -> HttpResponse:
    """The edges that should run a publish, in a few words; by itself it leads to their pipeline's list."""
    publish = publishing.publish_for(request.user, pk)
    if not pages.wants_fragment(request):
        return redirect("edges:edges", publish.pipeline_version.pipeline_id)
    names = queries.edges_for(request.user, publish=publish).values_list("name", flat=True)
    count = names.count()
    context = {"names": list(names[:NAMED]), "more": count - NAMED, "count": count}
    return render(request, "edges/_of_publish.html", context)


@never_cache
@page_or_form
@signed_in
def add(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of a new edge. Its answer holds the bundle, which is nowhere kept, so there is no redirect."""
    pipeline = catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    form = forms.AddForm(
        queries.publishes_to_run(pipeline),
        request.POST if request.method == "POST" else None,
        initial={"publish": request.GET.get("publish")},
    )
    if form.is_valid():
        with pages.refusals_on(form, "name"):
            added = operations.add_edge(actor=request.user, **form.cleaned_data)
            return _bundle(request, added)
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, form=form)
    return pages.ask(request, "edges/_add.html", context, status=422 if form.errors else 200)


@require_safe
@signed_in
def edge(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Why an edge is as it is, and what happened to it."""
    edge = queries.edge_for(request.user, pk, removed=True)
    explanation = queries.explanation_of(edge, timezone.now())
    context = _of_edge(request, edge, explanation=explanation, events=pages.newest(queries.events_of(edge)))
    return render(request, "edges/edge.html", context)


@require_safe
@signed_in
def events(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Everything that happened to an edge, newest first; also after it was removed."""
    edge = queries.edge_for(request.user, pk, removed=True)
    page = pages.paged(request, queries.events_of(edge))
    return render(request, "edges/events.html", _of_edge(request, edge, page=page))


@never_cache
@page_or_form
@signed_in
def reissue(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Asks, with the effect, and shows a new bundle for the same edge."""
    edge = queries.edge_for(request.user, pk, Role.COLLABORATOR)
    if request.method == "POST":
        return _bundle(
            request, operations.reissue_token(actor=request.user, edge=edge, reason=request.POST.get("reason", ""))
        )
    return pages.ask(request, "edges/_reissue.html", _of_edge(request, edge))


@page_or_form
@signed_in
def ban(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Asks, with the effect, and shuts an edge out until the ban is lifted."""
    edge = queries.edge_for(request.user, pk, Role.COLLABORATOR)
    if request.method == "POST":
        operations.ban_edge(actor=request.user, edge=edge, reason=request.POST.get("reason", ""))
        messages.success(request, _("Edge %(name)s is banned: everything it sends is refused.") % {"name": edge.name})
        return redirect("edges:edge", edge.pk)
    return pages.ask(request, "edges/_ban.html", _of_edge(request, edge))


@require_POST
@signed_in
def unban(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Lets a banned edge in again."""
    edge = operations.unban_edge(actor=request.user, edge=queries.edge_for(request.user, pk, Role.COLLABORATOR))
    messages.success(request, _("The ban of edge %(name)s is lifted.") % {"name": edge.name})
    return redirect("edges:edge", edge.pk)


@page_or_form
@signed_in
def remove(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Asks, with the effect, and shuts an edge out for good."""
    edge = queries.edge_for(request.user, pk, Role.COLLABORATOR)
    if request.method == "POST":
        operations.remove_edge(actor=request.user, edge=edge, reason=request.POST.get("reason", ""))
        messages.success(request, _("Edge %(name)s is removed. Its logs stay.") % {"name": edge.name})
        return redirect("edges:edges", edge.publish.pipeline_version.pipeline_id)
    return pages.ask(request, "edges/_remove.html", _of_edge(request, edge))


def _listed(request: SignedInRequest, workspace: Workspace, found: QuerySet[Edge], whose: str) -> dict[str, Any]:
    """A page of the edges that match the filter, and how all of them are. As many queries for 10,000 as for one.

    `whose` names the place whose edges these all are: whoever may see it sees the same.
    """
    form, now = forms.FilterForm(request.GET), timezone.now()
    is_filtered = any(form.data.get(name) for name in form.fields)
    summary = _summary(found, whose, now)
    # What no filter narrows was just counted.
    page = pages.paged_by_id(
        request, _filtered(found, form), queries.whole_edges(), None if is_filtered else summary.total
    )
    return pages.in_workspace(
        request,
        workspace,
        form=form,
        rows=[(edge, states.edge_state(edge, now), health.of_report(edge.report)) for edge in page],
        page=page,
        is_filtered=is_filtered,
        summary=summary,
    )


def _summary(found: QuerySet[Edge], whose: str, now: datetime) -> queries.FleetSummary:
    """How all edges of a list are. Of a large fleet it is kept for seconds: every open list asks again and again."""
    key = f"edges.summary.{whose}"
    summary: queries.FleetSummary | None = cache.get(key)
    if summary is None:
        summary = queries.summary_for(found, now, LAPSE_HOURS, named=LAPSING_NAMED)
        if summary.total >= LARGE_FLEET:
            cache.set(key, summary, SUMMARY_SECONDS)
    return summary


def _filtered(edges: QuerySet[Edge], form: forms.FilterForm) -> QuerySet[Edge]:
    """What an unusable filter leaves: everything, with the form saying what is wrong."""
    if not form.is_valid():
        return edges
    if text := form.cleaned_data["q"]:
        edges = queries.named_or_tagged(edges, text)
    if state := form.cleaned_data["state"]:
        edges = edges.filter(states.in_state(State(state), timezone.now()))
    if what := form.cleaned_data["serves"]:
        edges = queries.serving(edges, what)
    return edges


def _of_edge(request: SignedInRequest, edge: Edge, **context: Any) -> dict[str, Any]:
    pipeline = edge.publish.pipeline_version.pipeline
    return pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, edge=edge, **context)


def _bundle(request: SignedInRequest, added: operations.Added) -> HttpResponse:
    return pages.ask(request, "edges/_bundle.html", _of_edge(request, added.edge, handout=handouts.of_edge(added)))
