"""Times, spans and numbers as assays keep them, for templates."""

from datetime import UTC, datetime, timedelta

from django import template
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

from drift import charts

register = template.Library()
UNITS = (
    (604_800, ngettext_lazy("%d week", "%d weeks")),
    (86_400, ngettext_lazy("%d day", "%d days")),
    (3600, ngettext_lazy("%d hour", "%d hours")),
    (60, ngettext_lazy("%d minute", "%d minutes")),
)


@register.filter
def from_ms(value: int | None) -> datetime | None:
    """The moment of epoch milliseconds."""
    return None if value is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)


@register.filter
def span(seconds: int) -> str:
    """Seconds in the largest unit that divides them."""
    for length, unit in UNITS:
        if seconds % length == 0:
            return str(unit % (seconds // length))
    return _("%(count)s seconds") % {"count": seconds}


@register.filter
def short(value: object) -> str:
    """A number with the digits that one compares by; nothing for none."""
    return charts.short(value) if isinstance(value, int | float) else ""
