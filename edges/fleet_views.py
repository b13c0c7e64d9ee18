"""Pages of many edges at once: adding them, tokens with which devices add themselves, what is done with a selection."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import Role, Workspace
from catalog.pages import SignedInRequest, signed_in
from common.errors import Invalid
from edges import forms, handouts, provisioning, queries, selections, states
from edges.models import Edge
from edges.operations import Added
from publishing import commands
from publishing import queries as publishing

page_or_form = require_http_methods(["GET", "HEAD", "POST"])

# What the answer of each says when it is done; a new bundle is answered with the bundles instead.
DONE: dict[str, Any] = {
    "remove": ngettext_lazy("%d edge removed. Its logs stay.", "%d edges removed. Their logs stay."),
    "ban": ngettext_lazy(
        "%d edge banned: everything it sends is refused.", "%d edges banned: everything they send is refused."
    ),
    "unban": ngettext_lazy("The ban of %d edge is lifted.", "The ban of %d edges is lifted."),
    "tag": ngettext_lazy("The tags of %d edge are changed.", "The tags of %d edges are changed."),
    "reissue": "",
}


@never_cache
@page_or_form
@signed_in
def add_many(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of many new edges. Its answer holds their bundles, which are nowhere kept."""
    pipeline = catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    form = forms.AddManyForm(queries.publishes_to_run(pipeline), request.POST or None)
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, form=form)
    if form.is_valid():
        with pages.refusals_on(form):
            publish = form.cleaned_data["publish"]
            added = provisioning.add_edges(actor=request.user, publish=publish, edges=form.edges())
            return _bundles(request, added, context)
    return render(request, "edges/add_many.html", context, status=422 if form.errors else 200)


@require_safe
@signed_in
def fleet_tokens(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's fleet tokens, without what is secret of them."""
    pipeline, now = catalog.pipeline_for(request.user, pk), timezone.now()
    page = pages.paged_by_id(request, queries.fleet_tokens_in(pipeline), queries.whole_fleet_tokens())
    rows = [(token, states.token_state(token, now)) for token in page]
    can_add = queries.publishes_to_run(pipeline).exists()
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, rows=rows, page=page, can_add=can_add)
    return render(request, "edges/fleet_tokens.html", context)


@never_cache
@page_or_form
@signed_in
def make_fleet_token(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of a fleet token. Its answer holds the bundle, the same for all devices, which is nowhere kept."""
    pipeline = catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    form = forms.FleetTokenForm(queries.publishes_to_run(pipeline), request.POST or None)
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, form=form)
    if form.is_valid():
        given = {**form.cleaned_data}
        life = timedelta(hours=given.pop("hours"))
        with pages.refusals_on(form):
            made = provisioning.make_fleet_token(actor=request.user, life=life, **given)
            ready = commands.for_publish(publishing.view_of(made.token.publish), made.bundle)
            handout = handouts.of_bundle(f"fleet-token-{made.token.pk}", made.bundle, ready)
            return pages.ask(request, "edges/_fleet_bundle.html", {**context, "token": made.token, "handout": handout})
    return pages.ask(request, "edges/_make_fleet_token.html", context, status=422 if form.errors else 200)


@page_or_form
@signed_in
def revoke_fleet_token(request: SignedInRequest, pk: int) -> HttpResponse:
    """Asks, with the effect, and lets no device join with a fleet token any more."""
    token = queries.fleet_token_for(request.user, pk, Role.COLLABORATOR)
    pipeline = token.publish.pipeline_version.pipeline
    if request.method == "POST":
        provisioning.revoke_fleet_token(actor=request.user, token=token, reason=request.POST.get("reason", ""))
        messages.success(request, _("The fleet token for %(pattern)s is revoked.") % {"pattern": token.pattern})
        return redirect("edges:fleet-tokens", pipeline.pk)
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, token=token)
    return pages.ask(request, "edges/_revoke_fleet_token.html", context)


@never_cache
@page_or_form
@signed_in
def selected(request: SignedInRequest, pk: int) -> HttpResponse:
    """Asks, with the effect, and does one thing with all edges that were selected."""
    workspace = catalog.workspace_for(request.user, pk, Role.COLLABORATOR)
    given = request.POST if request.method == "POST" else request.GET
    verb, edges = given.get("verb", ""), _chosen(request, workspace, given.getlist("edge"))
    if verb not in DONE:
        raise Invalid(_("Choose what to do with the edges."))
    form = forms.TagsForm(request.POST if request.method == "POST" else None)
    context = pages.in_workspace(request, workspace, edges=edges, verb=verb, form=form, back=given.get("back", ""))
    if request.method == "POST" and form.is_valid():
        with pages.refusals_on(form):
            added = _do(request, verb, edges, form)
            if added:
                return _bundles(request, added, context)
            messages.success(request, DONE[verb] % len(edges))
            return _back(workspace, context["back"])
    return pages.ask(request, "edges/_selected.html", context, status=422 if form.errors else 200)


def _chosen(request: SignedInRequest, workspace: Workspace, asked: list[str]) -> list[Edge]:
    """The edges with these ids that are still there. Raises `Invalid` when that is none, or too many to ask for."""
    try:
        pks = {UUID(text) for text in asked[: selections.SELECTED + 1]}
    except ValueError as exc:
        raise Invalid(_("Select edges in the list.")) from exc
    if not 1 <= len(pks) <= selections.SELECTED:
        raise Invalid(_("Select from 1 to %(selected)s edges in the list.") % {"selected": selections.SELECTED})
    found = list(queries.edges_for(request.user, workspace=workspace).filter(pk__in=pks))
    if not found:
        raise Invalid(_("The edges that you selected are gone: look at the list again."))
    return found


def _do(request: SignedInRequest, verb: str, edges: list[Edge], form: forms.TagsForm) -> list[Added]:
    """The bundles that it gave, if it gives any."""
    told: dict[str, Any] = {"actor": request.user, "edges": edges, "reason": request.POST.get("reason", "")}
    if verb == "reissue":
        return selections.reissue_tokens(**told)
    if verb == "tag":
        selections.retag_edges(**told, **form.cleaned_data)
        return []
    {"remove": selections.remove_edges, "ban": selections.ban_edges, "unban": selections.unban_edges}[verb](**told)
    return []


def _back(workspace: Workspace, pipeline: str) -> HttpResponse:
    """To the list that the edges were selected in."""
    if pipeline.isdecimal() and len(pipeline) < 19:
        return redirect("edges:edges", int(pipeline))
    return redirect("edges:fleet", workspace.pk)


def _bundles(request: SignedInRequest, added: list[Added], context: dict[str, Any]) -> HttpResponse:
    given = {**context, "handouts": handouts.of_edges(added), "csv": handouts.csv_file(added)}
    return render(request, "edges/bundles.html", given)
