"""Command line of the engine: `opsengine serve`."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence

from opsengine import __version__, settings
from opsengine.engine import Engine
from opsengine.errors import EngineError, SettingsError

HELP = """\
Serve a published pipeline on this machine. Everything is set by the environment:

  PIPELINE_URL             location of the published pipeline (an EDGE_BUNDLE may name it)
  PIPELINE_DIR             a folder that holds the pipeline, as in a self-contained image; PIPELINE_URL goes before it
  OCI_REGISTRY             the registry; http:// or https:// in front settles the scheme
  OCI_USERNAME             login for the registry
  OCI_PASSWORD             its password or token
  OCI_PLAIN_HTTP           true: speak http to the registry (this machine's own is always http)
  OCI_CA_FILE              certificate authority of a private registry
  EDGE_BUNDLE              connects this edge to the ops center; shown there when the edge is added
  CONFIG_CPUS              CPUs for the models (default 1)
  LOCAL_INFERENCE_STORAGE  space for inference logs, e.g. 512Mi (default 1Gi); needs PLATEAU_PAGE_SIZE
  PLATEAU_PAGE_SIZE        log rows sent at a time (default 1000)
  PERSIST_DIR              where key, session, models and logs are kept (default /persist)
  ENGINE_HOST, ENGINE_PORT where to listen (default 0.0.0.0, 8080)
  MAX_BODY                 largest request body (default 64Mi)
  CHECKIN_SECONDS          time between check-ins (default: as the ops center says)
  DEBUG                    true: more log lines

OCI_PASSWORD and EDGE_BUNDLE may also be given as files: OCI_PASSWORD_FILE, EDGE_BUNDLE_FILE.
"""


class LineFormat(logging.Formatter):
    """One line a record: plain for the account of what happens, marked from WARNING on, in full with DEBUG."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback behind it where there is one."""
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname}: {text}"
        return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for wrong settings, 1 when there is nothing to serve."""
    parser = argparse.ArgumentParser(prog="opsengine", description="The OpsCenter edge inference server.")
    parser.add_argument("--version", action="version", version=f"opsengine {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    form = argparse.RawDescriptionHelpFormatter
    commands.add_parser("serve", help="serve a published pipeline", description=HELP, formatter_class=form)
    parser.parse_args(arguments)
    return serve()


def serve() -> int:
    """Serve with the settings of the environment until SIGTERM or SIGINT."""
    try:
        chosen = settings.read(os.environ)
    except SettingsError as error:
        print(f"opsengine: {error}", file=sys.stderr)
        return 2
    _start_logging(debug=chosen.debug)
    try:
        engine = Engine(chosen)
    except EngineError as error:
        print(f"opsengine: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    return engine.run()


def _start_logging(*, debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormat("%(asctime)s %(name)s: %(message)s" if debug else "%(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # its debug lines show URLs with queries
    logging.getLogger("_granian").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
