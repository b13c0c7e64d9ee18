"""The form of a rollout: what people type becomes a strategy. No rule of the domain is here."""

import re
from collections.abc import Iterable
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from publishing.models import Publish
from rollouts import windows
from rollouts.plans import Strategy

DEFAULTS = Strategy()
DAYS = (_("Mon"), _("Tue"), _("Wed"), _("Thu"), _("Fri"), _("Sat"), _("Sun"))
PERCENT = re.compile(r"([1-9][0-9]?|100)")
TIMES = re.compile(r"\s*(\S{5})\s*(?:-|to)\s*(\S{5})\s*(\S*)\s*")


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


def _number(low: int, high: int) -> forms.NumberInput:
    return forms.NumberInput(attrs={"class": "form-control", "min": str(low), "max": str(high)})


def label_of(publish: Publish) -> str:
    """A publish as people tell it apart."""
    version = publish.pipeline_version
    told = {"publish": publish.pk, "name": version.pipeline.name, "version": str(version.uuid)[:8]}
    return gettext("Publish %(publish)s of %(name)s, version %(version)s") % told


class RolloutForm(forms.Form):
    """Which publish goes to the edges of which others, and how."""

    publish = forms.TypedChoiceField(
        coerce=int, label=_("New publish"), widget=forms.Select(attrs={"class": "form-select"})
    )
    replaces = forms.TypedMultipleChoiceField(
        coerce=int, label=_("Replaces"), widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"})
    )
    canary = forms.CharField(
        required=False,
        label=_("First these edges"),
        widget=_text(),
        help_text=_("Names, separated by commas. Optional."),
    )
    tags = forms.CharField(
        required=False,
        label=_("Then edges with one of these tags"),
        widget=_text(),
        help_text=_("Separated by commas. Optional."),
    )
    percents = forms.CharField(
        required=False,
        label=_("Then these shares of the rest"),
        widget=_text(placeholder="10, 50"),
        help_text=_("In percent, a group each. All that is left then comes last."),
    )
    max_in_flight = forms.CharField(
        initial="10%",
        max_length=10,
        label=_("On their way at once"),
        widget=_text(),
        help_text=_("A number, or a share."),
    )
    success_percent = forms.IntegerField(
        initial=DEFAULTS.success_percent,
        min_value=1,
        max_value=100,
        label=_("A group passes with % successes"),
        widget=_number(1, 100),
        help_text=_("Of the edges that answered."),
    )
    error_percent = forms.IntegerField(
        initial=DEFAULTS.error_percent,
        min_value=0,
        max_value=100,
        label=_("Stop above % failures"),
        widget=_number(0, 100),
        help_text=_("Of the edges that answered."),
    )
    healthy_seconds = forms.IntegerField(
        initial=DEFAULTS.healthy_seconds,
        min_value=0,
        max_value=86_400,
        label=_("Healthy for seconds"),
        widget=_number(0, 86_400),
        help_text=_("How long an edge must prove that it serves the new publish."),
    )
    answer_seconds = forms.IntegerField(
        initial=DEFAULTS.answer_seconds,
        min_value=60,
        max_value=604_800,
        label=_("Failed after seconds"),
        widget=_number(60, 604_800),
        help_text=_("How long an edge in contact may take to prove it."),
    )
    hours = forms.IntegerField(
        initial=DEFAULTS.hours, min_value=1, max_value=2160, label=_("Ends after hours"), widget=_number(1, 2160)
    )
    window = forms.CharField(
        required=False,
        label=_("Only from - to"),
        widget=_text(placeholder="22:00-04:00 Europe/Berlin"),
        help_text=_("Times of day and a time zone. Optional."),
    )
    days = forms.MultipleChoiceField(
        required=False,
        choices=list(zip(windows.DAYS, DAYS, strict=True)),
        label=_("On these days"),
        widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}),
    )
    auto_rollback = forms.BooleanField(
        required=False,
        initial=True,
        label=_("On too many failures move all edges back"),
        widget=forms.CheckboxInput(attrs={"class": "form-check-input"}),
        help_text=_("Otherwise it pauses, and a person decides."),
    )
    link_mbps = forms.FloatField(
        initial=10,
        min_value=0.001,
        label=_("Link of an edge, Mbit/s"),
        widget=forms.NumberInput(attrs={"class": "form-control", "min": "0.001", "step": "any"}),
        help_text=_("For the estimated time only."),
    )

    def __init__(self, targets: Iterable[Publish], replaceable: Iterable[Publish], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["publish"].choices = [(publish.pk, label_of(publish)) for publish in targets]  # type: ignore[attr-defined]
        self.fields["replaces"].choices = [(publish.pk, label_of(publish)) for publish in replaceable]  # type: ignore[attr-defined]

    def clean_percents(self) -> list[int]:
        """Whole numbers."""
        words = _words(self.cleaned_data["percents"].replace("%", ""))
        if not all(PERCENT.fullmatch(word) for word in words):
            raise forms.ValidationError(gettext("Give whole numbers from 1 to 100, for example 10, 50."))
        return [int(word) for word in words]

    def clean_window(self) -> tuple[str, str, str] | None:
        """From, to and zone."""
        if not self.cleaned_data["window"].strip():
            return None
        found = TIMES.fullmatch(self.cleaned_data["window"])
        if not found:
            raise forms.ValidationError(
                gettext("Give two times of day and a time zone, for example 22:00-04:00 Europe/Berlin.")
            )
        return found[1], found[2], found[3]

    @property
    def strategy(self) -> Strategy:
        """What a valid form asks for."""
        given = self.cleaned_data
        named: list[tuple[str, list[Any]]] = [("edges", _words(given["canary"])), ("tags", _words(given["tags"]))]
        groups: list[dict[str, Any]] = [{kind: words} for kind, words in named if words]
        groups += [{"percent": percent} for percent in given["percents"]]
        window = None
        if given["window"]:
            begins, ends, zone = given["window"]
            window = {"days": given["days"], "from": begins, "to": ends, "zone": zone}
        plain = ("max_in_flight", "success_percent", "error_percent", "healthy_seconds", "answer_seconds", "hours")
        return Strategy(
            groups=groups or DEFAULTS.groups,
            window=window,
            auto_rollback=given["auto_rollback"],
            **{name: given[name] for name in plain},
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
