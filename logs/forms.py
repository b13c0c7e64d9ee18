"""Which rows a person wants to see."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from catalog.models import PipelineVersion
from logs.buckets import Asked, Group
from logs.filters import COUNT, Filters, is_pattern
from logs.models import LogExport

PERIODS = {
    "15m": (_("Last 15 minutes"), timedelta(minutes=15)),
    "1h": (_("Last hour"), timedelta(hours=1)),
    "24h": (_("Last 24 hours"), timedelta(days=1)),
    "7d": (_("Last 7 days"), timedelta(days=7)),
    "30d": (_("Last 30 days"), timedelta(days=30)),
}
CHART_PERIOD = "24h"
CHART_POINTS = 120


def _moment() -> forms.DateTimeInput:
    return forms.DateTimeInput(attrs={"class": "form-control", "type": "datetime-local", "step": "1"})


def _select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


class _RangeForm(forms.Form):
    """Edge, version and time. Times are UTC; exact times, where given, count instead of the period."""

    edge = forms.CharField(
        required=False,
        max_length=256,
        label=_("Edge"),
        widget=_text(type="search", list="edge-names", placeholder=_("All, or a name")),
    )
    period = forms.ChoiceField(
        required=False,
        label=_("Time"),
        choices=[("", _("Any time")), *((key, name) for key, (name, _length) in PERIODS.items())],
        widget=_select(),
    )
    start = forms.DateTimeField(required=False, label=_("From (UTC)"), widget=_moment())
    end = forms.DateTimeField(required=False, label=_("To (UTC)"), widget=_moment())
    model = forms.CharField(
        required=False,
        max_length=256,
        label=_("Model"),
        widget=_text(type="search", placeholder=_("All, or a name")),
    )
    pipeline_version = forms.ChoiceField(required=False, label=_("Version"), widget=_select())

    def __init__(self, versions: Iterable[PipelineVersion], data: Any) -> None:
        super().__init__(data)
        named = [(str(one.uuid), f"{str(one.uuid)[:8]}, {one.created_at:%Y-%m-%d %H:%M} UTC") for one in versions]
        self.fields["pipeline_version"].choices = [("", _("All versions")), *named]  # type: ignore[attr-defined]

    @property
    def is_narrowed(self) -> bool:
        """Whether something is asked of rows beyond what everybody sees first."""
        return any(self.data.get(name) for name in self.fields)

    def bounds(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """First and last moment, open where None."""
        start, end = self.cleaned_data.get("start"), self.cleaned_data.get("end")
        period = self.cleaned_data.get("period")
        if period and not (start or end):
            start = now - PERIODS[period][1]
        return (start.astimezone(UTC) if start else None), (end.astimezone(UTC) if end else None)


class FilterForm(_RangeForm):
    """Which rows are listed: the names are those of the REST."""

    anomaly = forms.CharField(
        required=False,
        max_length=256,
        label=_("Failed validation"),
        widget=_text(placeholder=_("All rows"), list="checks"),
    )
    filter = forms.CharField(
        required=False, max_length=1000, label=_("Values"), widget=_text(placeholder="out.variable > 500000")
    )

    def filters(self, now: datetime) -> Filters:
        """The rows that were meant. Raises `Invalid`."""
        start, end = self.bounds(now)
        names = ("edge", "model", "pipeline_version", "anomaly", "filter")
        given: dict[str, list[object] | None] = {
            name: [self.cleaned_data[name]] for name in names if self.cleaned_data.get(name)
        }
        times: dict[str, list[object] | None] = {
            name: [at.isoformat()] for name, at in (("start", start), ("end", end)) if at
        }
        return Filters.parse(MultiValueDict({**given, **times}))


class ExportForm(FilterForm):
    """Which rows go into files, and of what kind."""

    format = forms.ChoiceField(
        label=_("Kind of file"),
        choices=LogExport.Format.choices,
        initial=LogExport.Format.PARQUET,
        widget=_select(),
    )


class ChartForm(_RangeForm):
    """What the charts show."""

    by = forms.ChoiceField(
        required=False,
        label=_("A line for each"),
        choices=[
            ("", _("Nothing: all in one")),
            *(
                (group.value, name)
                for group, name in (
                    (Group.EDGE, _("Edge")),
                    (Group.MODEL, _("Model")),
                    (Group.VERSION, _("Pipeline version")),
                )
            ),
        ],
        widget=_select(),
    )
    field = forms.CharField(
        required=False,
        max_length=512,
        label=_("Distribution of"),
        widget=_text(list="fields", placeholder=_("First output")),
    )

    def clean_edge(self) -> str:
        """Rollups are kept by name."""
        edge: str = self.cleaned_data["edge"]
        if is_pattern(edge):
            raise forms.ValidationError(gettext("Charts take the name of one edge, not a pattern."))
        return edge

    def asked(self, now: datetime) -> Asked:
        """The rows that were meant. Raises `Invalid` for an empty range."""
        given = self.cleaned_data
        start, end = self.bounds(now)
        end = end or now + timedelta(milliseconds=1)
        return Asked(
            start=start or end - PERIODS[CHART_PERIOD][1],
            end=end,
            points=CHART_POINTS,
            edges=(given["edge"],) if given["edge"] else (),
            pipeline_version=given["pipeline_version"] or None,
            model=given["model"],
            group_by=Group(given["by"]) if given["by"] else None,
        )


__all__ = ["COUNT", "ChartForm", "ExportForm", "FilterForm"]
