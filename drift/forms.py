"""The form of an assay: the form of input, and no rule of the domain."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from drift.baselines import MAX_BYTES
from drift.measures import MAX_BINS, BinMode, Metric
from drift.models import Baseline
from drift.operations import DEFAULT_ALERT, BaselineAsked, Changes, Comparison, Schedule

WINDOWS = [
    (60, _("1 minute")),
    (300, _("5 minutes")),
    (900, _("15 minutes")),
    (3600, _("1 hour")),
    (21_600, _("6 hours")),
    (86_400, _("1 day")),
    (604_800, _("1 week")),
]
METRICS = [
    (Metric.PSI.value, _("Population stability index (PSI)")),
    (Metric.MAX_DIFF.value, _("Largest difference of a bin")),
    (Metric.SUM_DIFF.value, _("Sum of the differences")),
]
MODES = [(BinMode.QUANTILE.value, _("As many numbers in each")), (BinMode.EQUAL.value, _("Of the same width"))]


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


def _number(**attrs: Any) -> forms.NumberInput:
    return forms.NumberInput(attrs={"class": "form-control", "step": "any", **attrs})


def _select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def _moment() -> forms.DateTimeInput:
    return forms.DateTimeInput(
        attrs={"class": "form-control", "type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
    )


def _window(label: Any, initial: int, help_text: Any = "") -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        label=label, choices=WINDOWS, coerce=int, initial=initial, widget=_select(), help_text=help_text
    )


class AssayForm(forms.Form):
    """What is compared with what, how, and when."""

    name = forms.CharField(
        max_length=128, label=_("Name"), widget=_text(autofocus=True), help_text=_("For example price drift.")
    )
    model = forms.ChoiceField(label=_("Model"), widget=_select())
    field = forms.CharField(
        max_length=512,
        label=_("Field"),
        widget=_text(list="fields", placeholder="out.variable[0]"),
        help_text=_("A number of the rows: an output such as out.variable[0], or an input."),
    )
    edges = forms.CharField(
        required=False,
        label=_("Edges"),
        widget=_text(list="edge-names"),
        help_text=_("Names, separated by commas. Empty: all edges."),
    )
    by_edge = forms.BooleanField(
        required=False,
        label=_("Score each edge by itself"),
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
    )
    baseline_start = forms.DateTimeField(required=False, label=_("From (UTC)"), widget=_moment())
    baseline_end = forms.DateTimeField(required=False, label=_("To (UTC)"), widget=_moment())
    baseline_upload = forms.FileField(
        required=False,
        label=_("Or the numbers of a file"),
        widget=forms.ClearableFileInput(attrs={"class": "form-control"}),
        help_text=_(
            "Arrow, pandas-records JSON, or CSV with a head, at most 10 MiB; the column is found by the field's name."
        ),
    )
    baseline_file = forms.ModelChoiceField(
        Baseline.objects.none(),
        required=False,
        label=_("Or a file uploaded before"),
        empty_label=_("None"),
        widget=_select(),
    )
    bin_mode = forms.ChoiceField(label=_("Bins"), choices=MODES, initial=BinMode.QUANTILE.value, widget=_select())
    bins = forms.IntegerField(label=_("How many bins"), initial=5, min_value=1, max_value=MAX_BINS, widget=_number())
    metric = forms.ChoiceField(label=_("Score"), choices=METRICS, initial=Metric.PSI.value, widget=_select())
    alert = forms.FloatField(
        required=False,
        label=_("Alert above"),
        widget=_number(),
        help_text=format_lazy(
            _("Empty: {psi} for PSI, {most} for the largest difference, {sum} for the sum."),
            psi=DEFAULT_ALERT[Metric.PSI],
            most=DEFAULT_ALERT[Metric.MAX_DIFF],
            sum=DEFAULT_ALERT[Metric.SUM_DIFF],
        ),
    )
    warning = forms.FloatField(
        required=False, label=_("Warning above"), widget=_number(), help_text=_("Empty: no warnings, only alerts.")
    )
    width = _window(_("Window"), 3600)
    interval = _window(_("A window every"), 3600, _("Shorter than the window: windows overlap."))
    min_records = forms.IntegerField(
        label=_("Least rows of a window"),
        initial=1,
        min_value=1,
        widget=_number(),
        help_text=_("Fewer are not scored."),
    )

    def __init__(self, models: Iterable[str], uploads: QuerySet[Baseline], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].choices = [(name, name) for name in models]  # type: ignore[attr-defined]
        self.fields["baseline_file"].queryset = uploads  # type: ignore[attr-defined]

    def clean_baseline_upload(self) -> "UploadedFile[bytes] | None":
        """Not larger than one is read."""
        file: UploadedFile[bytes] | None = self.cleaned_data["baseline_upload"]
        if file and (file.size or 0) > MAX_BYTES:
            raise forms.ValidationError(_("The file has more than 10 MiB: take fewer rows, or only the one column."))
        return file

    def clean(self) -> dict[str, Any]:
        """One baseline is meant: a file that comes along before one that is chosen before a time range."""
        given = super().clean() or {}
        has_file = given.get("baseline_upload") or given.get("baseline_file")
        if not has_file and not (given.get("baseline_start") and given.get("baseline_end")):
            raise forms.ValidationError(_("A baseline is a time range with both ends, or a file."))
        return given

    def clean_edges(self) -> tuple[str, ...]:
        """Each name once."""
        names = (name.strip() for name in self.cleaned_data["edges"].split(","))
        return tuple(dict.fromkeys(name for name in names if name))

    def comparison(self) -> Comparison:
        """What was meant. Raises `Invalid`."""
        given = self.cleaned_data
        return Comparison(
            model=given["model"],
            field=given["field"],
            baseline=self._baseline(),
            edges=given["edges"],
            bin_mode=BinMode(given["bin_mode"]),
            bins=given["bins"],
            metric=Metric(given["metric"]),
        )

    def use_upload(self, baseline: Baseline) -> None:
        """The file that came along is stored as this: it need not come again with the next attempt."""
        self.cleaned_data["baseline_file"] = baseline
        data = cast(QueryDict, self.data).copy()
        data["baseline_file"] = str(baseline.pk)
        self.data = data

    def _baseline(self) -> BaselineAsked:
        given = self.cleaned_data
        if given["baseline_file"]:
            return BaselineAsked(file=given["baseline_file"].pk)
        return BaselineAsked(_utc(given["baseline_start"]), _utc(given["baseline_end"]))

    def schedule(self) -> Schedule:
        """When windows are scored."""
        return Schedule(width=self.cleaned_data["width"], interval=self.cleaned_data["interval"])


class ChangeForm(forms.Form):
    """What may be changed of an assay."""

    name = forms.CharField(max_length=128, label=_("Name"), widget=_text(autofocus=True))
    alert = forms.FloatField(label=_("Alert above"), widget=_number())
    warning = forms.FloatField(
        required=False, label=_("Warning above"), widget=_number(), help_text=_("Empty: no warnings, only alerts.")
    )
    min_records = forms.IntegerField(
        label=_("Least rows of a window"), min_value=1, max_value=2**31 - 1, widget=_number()
    )
    wait = forms.IntegerField(
        label=_("Seconds to wait for late rows"),
        min_value=0,
        max_value=366 * 86_400,
        widget=_number(),
        help_text=_("After a window has ended, before it is scored."),
    )
    run_until = forms.DateTimeField(
        required=False, label=_("No window ends after (UTC)"), widget=_moment(), help_text=_("Empty: it goes on.")
    )

    def changes(self) -> Changes:
        """What was meant."""
        given = self.cleaned_data
        return Changes(
            name=given["name"],
            alert=given["alert"],
            warning=given["warning"],
            min_records=given["min_records"],
            wait=given["wait"],
            run_until=_utc(given["run_until"]) if given["run_until"] else None,
        )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
