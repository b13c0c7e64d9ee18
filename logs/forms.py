"""Which rows a person wants to see."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms

PERIODS = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(days=1)),
    "7d": ("Last 7 days", timedelta(days=7)),
}


def _moment() -> forms.DateTimeInput:
    return forms.DateTimeInput(attrs={"class": "form-control", "type": "datetime-local", "step": "1"})


class FilterForm(forms.Form):
    """Edge and time. Times are UTC; exact times, where given, count instead of the period."""

    edge = forms.ChoiceField(required=False, widget=forms.Select(attrs={"class": "form-select"}))
    period = forms.ChoiceField(
        required=False,
        choices=[("", "Any time"), *((key, name) for key, (name, _) in PERIODS.items())],
        widget=forms.Select(attrs={"class": "form-select"}),
    )
    start = forms.DateTimeField(required=False, label="From (UTC)", widget=_moment())
    end = forms.DateTimeField(required=False, label="To (UTC)", widget=_moment())

    def __init__(self, edges: list[str], data: Any) -> None:
        super().__init__(data)
        self.fields["edge"].choices = [("", "All edges"), *((name, name) for name in edges)]  # type: ignore[attr-defined]

    def bounds(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """First and last moment, open where None."""
        start, end = self.cleaned_data.get("start"), self.cleaned_data.get("end")
        period = self.cleaned_data.get("period")
        if period and not (start or end):
            start = now - PERIODS[period][1]
        return (start.astimezone(UTC) if start else None), (end.astimezone(UTC) if end else None)
