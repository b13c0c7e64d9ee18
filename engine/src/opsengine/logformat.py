"""The engine's own log lines: plain text for people, or one JSON object a line for collectors (LOG_FORMAT=json)."""

import logging
import sys

import orjson

# Attributes that every record has; what else is there was given with `extra`.
KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = {logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "critical", logging.DEBUG: "debug"}


class LineFormat(logging.Formatter):
    """One line a record: plain for the account of what happens, marked from WARNING on, in full with DEBUG."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback behind it where there is one."""
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname}: {text}"
        return text


class JsonFormat(logging.Formatter):
    """One JSON object a record: time (epoch ms), level, logger, message, fields, and a traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, object] = {
            "time": int(record.created * 1000),
            "level": LEVELS.get(record.levelno, "info"),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in KNOWN}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(told, default=str).decode()


def start(form: str, *, debug: bool) -> None:
    """Log to stderr in the given form ("text" or "json")."""
    handler = logging.StreamHandler(sys.stderr)
    text = LineFormat("%(asctime)s %(name)s: %(message)s" if debug else "%(message)s")
    handler.setFormatter(JsonFormat() if form == "json" else text)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its debug lines show URLs with queries
