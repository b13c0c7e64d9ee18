"""Times and spans as assays keep them, for templates."""

from datetime import UTC, datetime, timedelta

from django import template

register = template.Library()
UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60))


@register.filter
def from_ms(value: int | None) -> datetime | None:
    """The moment of epoch milliseconds."""
    return None if value is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)


@register.filter
def span(seconds: int) -> str:
    """Seconds in the largest unit that divides them."""
    for unit, length in UNITS:
        if seconds % length == 0:
            count = seconds // length
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds} seconds"
