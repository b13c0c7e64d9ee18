"""Anticipated failures of logs. Codes and statuses are those of `contract/errors.json`."""

from common import errors


class InvalidPage(errors.Invalid):
    """The body is not a page of logs; sending it again does not help."""

    code = "invalid_page"


class PageTooLarge(errors.TooLarge):
    """More rows or bytes than one page may have. `data["limit"]` is the limit that was passed."""

    code = "page_too_large"


class LogHole(errors.Conflict):
    """Rows between the last durable one and the first sent are missing. `data["expected"]` is where to begin."""

    code = "log_hole"


class ObservabilityOff(errors.Forbidden):
    """No logs are taken from anybody now; whoever has some keeps them for later."""

    code = "observability_off"
