"""The formats of rows, chosen by `Accept` or by `?format=`."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from common.errors import Invalid
from logs import formats
from logs.query import Answer

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"


class Records(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Answer, media_type: str | None = None, context: Mapping[str, Any] | None = None) -> bytes:
        return formats.records(data.table)


class ArrowFile(BaseRenderer):
    media_type = ARROW_FILE
    format = "arrow"
    charset = None
    render_style = "binary"

    def render(self, data: Answer, media_type: str | None = None, context: Mapping[str, Any] | None = None) -> bytes:
        return formats.arrow_file(data)


class ArrowStream(BaseRenderer):
    media_type = ARROW_STREAM
    format = "arrow-stream"
    charset = None
    render_style = "binary"

    def render(self, data: Answer, media_type: str | None = None, context: Mapping[str, Any] | None = None) -> bytes:
        return formats.arrow_stream(data)


class Negotiation(DefaultContentNegotiation):
    def filter_renderers(self, renderers: Iterable[BaseRenderer], format: str) -> list[BaseRenderer]:
        """Those of a format that was asked for by name. Raises `Invalid` instead of DRF's 404."""
        known = list(renderers)
        named = [renderer for renderer in known if renderer.format == format]
        if not named:
            names = ", ".join(str(renderer.format) for renderer in known)
            raise Invalid(
                _("There is no format %(format)s: choose one of %(names)s.") % {"format": format, "names": names}
            )
        return named


class Whatever(BaseContentNegotiation):
    """For answers that have one format, and refusals that are JSON all the same."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
