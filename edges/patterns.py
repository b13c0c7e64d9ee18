"""Names of edges that devices get when they add themselves: a pattern and a number. Pure."""

import re

from django.utils.translation import gettext as _

from common.errors import Invalid

# One number, perhaps padded with zeros: shop-{n}, shop-{n:04}.
PATTERN = re.compile(r"([^{}]*)\{n(?::0([1-9]))?\}([^{}]*)")


def name_of(pattern: str, number: int) -> str:
    """The name that a pattern gives to a number. Raises `Invalid` for what is no pattern."""
    found = PATTERN.fullmatch(pattern)
    if not found:
        raise Invalid(_("pattern must hold the number once, as {n} or padded as {n:04}, for example shop-{n:04}."))
    before, width, after = found.groups()
    return f"{before}{number:0{width or 0}d}{after}"
