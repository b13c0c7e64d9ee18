"""Maintenance windows: on which days, from when to when, in which time zone. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.utils.translation import gettext as _

from common.errors import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
EXAMPLE = '{"days": ["sat", "sun"], "from": "22:00", "to": "04:00", "zone": "Europe/Berlin"}'


def checked(window: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A window as it is stored; without days every day. Raises `Invalid`."""
    if window is None:
        return None
    days = list(dict.fromkeys(window.get("days") or DAYS))
    begins, ends = str(window.get("from", "")), str(window.get("to", ""))
    if set(days) - set(DAYS) or not CLOCK.fullmatch(begins) or not CLOCK.fullmatch(ends) or begins == ends:
        raise Invalid(
            _("A window has days (mon to sun) and two different times of day, as in %(example)s.")
            % {"example": EXAMPLE}
        )
    zone = str(window.get("zone") or "UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:  # a folder's name and a path out of it raise others
        raise Invalid(
            _("There is no time zone %(zone)r: name one of the IANA database, as Europe/Berlin.") % {"zone": zone}
        ) from exc
    return {"days": days, "from": begins, "to": ends, "zone": zone}


def is_open(window: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether edges may move now. A window that ends before it begins ends on the next day."""
    if window is None:
        return True
    local = now.astimezone(ZoneInfo(window["zone"]))
    begins, ends = time.fromisoformat(window["from"]), time.fromisoformat(window["to"])
    at = local.time().replace(tzinfo=None)
    if begins < ends:
        return _includes(window, local) and begins <= at < ends
    if at >= begins:
        return _includes(window, local)
    return at < ends and _includes(window, local - timedelta(days=1))


def _includes(window: Mapping[str, Any], day: datetime) -> bool:
    return DAYS[day.weekday()] in window["days"]
