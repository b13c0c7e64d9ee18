"""Parts of pages inside of sentences, which are translated whole."""

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

register = template.Library()


@register.simple_tag
def part(name: str, **context: Any) -> str:
    """What `parts/_<name>.html` draws; `{% part "time" value=… as moment %}` keeps it for a `blocktranslate`."""
    return mark_safe(render_to_string(f"parts/_{name}.html", context).strip())
