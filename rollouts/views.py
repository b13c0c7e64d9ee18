"""Pages of rollouts: a pipeline's list, a new one with its byte budget before it starts, and one as it goes."""

import math
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from catalog import pages
from catalog import queries as catalog
from catalog.models import Role
from catalog.pages import SignedInRequest, signed_in
from rollouts import forms, operations, queries, windows
from rollouts.models import FORWARD, Bucket, Rollout, State

PAGE_LENGTH = 20
SHOWN_MEMBERS = 50
# Named also while no edge is there: links that come and go every few seconds are hit by mistake.
STEADY = (Bucket.WAITING, Bucket.IN_FLIGHT, Bucket.DONE, Bucket.FAILED, Bucket.OFFLINE)
page_or_form = require_http_methods(["GET", "HEAD", "POST"])


@require_safe
@signed_in
def rollouts(request: SignedInRequest, pk: int) -> HttpResponse:
    """A pipeline's rollouts, newest first."""
    pipeline = catalog.pipeline_for(request.user, pk)
    page = Paginator(queries.of_pipeline(request.user, pipeline), PAGE_LENGTH).get_page(request.GET.get("page"))
    progress = queries.progress_of_all(page)
    rows = [(rollout, progress[rollout.pk]) for rollout in page]
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, rows=rows, page=page)
    context["can_roll_out"] = queries.targets_for(request.user, pipeline).exists()
    return render(request, "rollouts/rollouts.html", context)


@require_safe
@signed_in
def live(request: SignedInRequest, pk: int) -> HttpResponse:
    """The rollouts of a pipeline that are under way, in a line each, for the pages below; by itself the list."""
    pipeline = catalog.pipeline_for(request.user, pk)
    if not pages.wants_fragment(request):
        return redirect("rollouts:rollouts", pk)
    running = queries.of_pipeline(request.user, pipeline).filter(ended_at=None)
    return render(request, "rollouts/_live.html", {"rollouts": running})


@page_or_form
@signed_in
def create(request: SignedInRequest, pk: int) -> HttpResponse:
    """The form of a rollout. Its first answer shows what each edge must fetch, the second one starts it."""
    pipeline = catalog.pipeline_for(request.user, pk, Role.COLLABORATOR)
    targets, replaceable = queries.targets_for(request.user, pipeline), queries.replaceable_for(request.user, pipeline)
    form = forms.RolloutForm(targets, replaceable, request.POST if request.method == "POST" else None)
    context = pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, form=form)
    context["targets"], context["replaceable"] = targets, replaceable
    if form.is_valid():
        asked: dict[str, Any] = {name: form.cleaned_data[name] for name in ("publish", "replaces")}
        with pages.refusals_on(form):
            if "start" in request.POST:
                made = operations.create(actor=request.user, strategy=form.strategy, **asked)
                return redirect("rollouts:rollout", made.pk)
            plan = operations.preview(actor=request.user, strategy=form.strategy, **asked)
            link, healthy = form.cleaned_data["link_mbps"], form.cleaned_data["healthy_seconds"]
            context |= {"plan": plan, "link_mbps": link, "minutes": math.ceil(plan.seconds(link, healthy) / 60)}
            context["largest"] = sorted(plan.edges, key=lambda edge: -edge.bytes_to_fetch)[:10]
    return render(request, "rollouts/create.html", context, status=422 if form.errors else 200)


@require_safe
@signed_in
def rollout(request: SignedInRequest, pk: int) -> HttpResponse:
    """How far a rollout is; htmx asks again for the part that changes."""
    rollout = queries.rollout_for(request.user, pk)
    bucket = request.GET.get("bucket", "")
    bucket = bucket if bucket in Bucket else ""
    members = Paginator(queries.members_of(rollout, bucket), SHOWN_MEMBERS).get_page(request.GET.get("page"))
    context = _of(request, rollout, bucket=bucket, page=members)
    context |= {
        "days": _days(rollout),
        "progress": queries.progress_of(rollout),
        "steady": () if rollout.has_ended else STEADY,
        "events": pages.newest(queries.events_of(rollout)),
        "is_forward": rollout.state in FORWARD,
        "can_pause": rollout.state in (State.PENDING, State.RUNNING),
        "can_resume": rollout.state == State.PAUSED,
        "can_abort": rollout.state in (*FORWARD, State.ABORTING),
    }
    name = "_rollout" if pages.wants_fragment(request) else "rollout"
    return render(request, f"rollouts/{name}.html", context)


@require_safe
@signed_in
def events(request: SignedInRequest, pk: int) -> HttpResponse:
    """Everything that happened to a rollout, newest first."""
    rollout = queries.rollout_for(request.user, pk)
    page = pages.paged(request, queries.events_of(rollout))
    return render(request, "rollouts/events.html", _of(request, rollout, page=page))


@require_POST
@signed_in
def pause(request: SignedInRequest, pk: int) -> HttpResponse:
    """Moves no further edge."""
    return _steer(request, pk, operations.pause, _("It is paused: edges on their way arrive, no other one is moved."))


@require_POST
@signed_in
def resume(request: SignedInRequest, pk: int) -> HttpResponse:
    """Goes on."""
    return _steer(request, pk, operations.resume, _("It goes on. Failures until now are forgiven."))


@page_or_form
@signed_in
def abort(request: SignedInRequest, pk: int) -> HttpResponse:
    """Asks, with the effect, and stops a rollout for good."""
    if request.method == "POST":
        rollback, reason = "rollback" in request.POST, request.POST.get("reason", "")
        done = _("It is being rolled back.") if rollback else _("It is being aborted.")
        return _steer(request, pk, operations.abort, done, rollback=rollback, reason=reason)
    rollout = queries.rollout_for(request.user, pk, Role.COLLABORATOR)
    return pages.ask(request, "rollouts/_abort.html", _of(request, rollout, counts=queries.progress_of(rollout).counts))


def _steer(request: SignedInRequest, pk: int, verb: Callable[..., Rollout], done: str, **given: object) -> HttpResponse:
    rollout = queries.rollout_for(request.user, pk, Role.COLLABORATOR)
    verb(actor=request.user, rollout=rollout, **given)
    messages.success(request, done)
    return redirect("rollouts:rollout", pk)


def _days(rollout: Rollout) -> list[str]:
    """The days of its window as people call them."""
    if not rollout.window:
        return []
    chosen = [str(name) for day, name in zip(windows.DAYS, forms.DAYS, strict=True) if day in rollout.window["days"]]
    return chosen if len(chosen) < len(windows.DAYS) else [_("every day")]


def _of(request: SignedInRequest, rollout: Rollout, **context: Any) -> dict[str, Any]:
    pipeline = rollout.publish.pipeline_version.pipeline
    return pages.in_workspace(request, pipeline.workspace, pipeline=pipeline, rollout=rollout, **context)
