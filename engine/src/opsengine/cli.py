"""Command line of the engine: `opsengine serve`, `join`, `status`, `pull`, `infer`, `rollback`, `verify`, `version`."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from opsengine import __version__, local, logformat, machine, memory, once, privileges, settings, views
from opsengine.engine import Engine, holder, lock
from opsengine.errors import EngineError, InUse, RequestError, SettingsError
from opsengine.settings import Settings

SERVE = """\
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
  LOG_FIELD_LIMIT          inputs with longer rows are not logged, only named (default 64Ki)
  COSIGN_PUBLIC_KEY        serve only publishes that are signed with this key (PEM)
  REQUIRE_SIGNATURE        true: do not start without such a key; false: do not ask for signatures
  PERSIST_DIR              where key, session, models and logs are kept (default /persist)
  ENGINE_HOST, ENGINE_PORT where to listen (default 0.0.0.0, 8080)
  MAX_BODY                 largest request body (default 64Mi)
  MAX_QUEUE                requests that may wait; more are refused with 429 (default 64)
  CHECKIN_SECONDS          time between check-ins (default: as the ops center says)
  LOG_FORMAT               text or json (default text)
  DEBUG                    true: more log lines
  RUN_AS                   number of the user to become when started as root (the image sets it)
  SSL_CERT_FILE            certificate authorities for all that the engine calls
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY  the way out of this network, as for other programs

OCI_PASSWORD, EDGE_BUNDLE and COSIGN_PUBLIC_KEY may also be given as files: OCI_PASSWORD_FILE and so on.

Exit codes: 0 after SIGTERM or SIGINT, 1 when there is nothing to serve, 2 for a wrong setting.
"""
JOIN = """\
Join the ops center with EDGE_BUNDLE and exit: the session is kept in PERSIST_DIR, where `opsengine serve` finds it.
For machines that are prepared at one place and serve at another. Does nothing when this bundle was used here already.
"""
STATUS = """\
Tell what the engine on this machine does: ask it on ENGINE_HOST and ENGINE_PORT, or, when it is down, read PERSIST_DIR
(as the engine's user: what another one may not read is named, and who may).
Exit codes: 0 when it serves, 1 when it runs without a pipeline or PERSIST_DIR cannot be read, 3 when it is down.
"""
PULL = """\
Fetch PIPELINE_URL into PERSIST_DIR and exit, so that a later start needs no network. Only what is missing is fetched;
signature and digests are checked as when serving. Prints the digest.
"""
ROLLBACK = """\
Serve the publish that was served before the current one. An engine that runs on PERSIST_DIR changes over at once,
without a failed request (run this as its user: `docker exec <container> opsengine rollback`); a stopped one at its
next start. What was taken back is not tried again until the ops center or PIPELINE_URL names something else.
Prints the digest that is served.
"""
VERIFY = """\
Read everything in the store of PERSIST_DIR again and check it against its digest, and the signature of each publish
when COSIGN_PUBLIC_KEY is set. Changes nothing: the engine itself fetches damaged files again. Run it as the engine's
user: what another one may not read is named, and who may.
Exit codes: 0 when all is right, 1 when not.
"""
INFER = """\
Answer one request with the pipeline in a folder, without serving it, and print the answer as pandas records. The folder
is one that an engine would serve as PIPELINE_DIR. The request comes from a file or from stdin, as it would be sent to
/infer: records in JSON, or Arrow. Nothing is logged or kept.
Exit codes: 0 with an answer, 1 when the pipeline cannot be loaded, 2 for a file that cannot be read, 3 when the
pipeline refuses the request.
"""
REFUSED = 3
DOWN = 3  # as for a service that is not running


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for wrong settings, 1 when the command failed."""
    parser = argparse.ArgumentParser(prog="opsengine", description="The OpsCenter edge inference server.")
    parser.add_argument("--version", action="version", version=f"opsengine {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    form = argparse.RawDescriptionHelpFormatter
    for name, short, long in (
        ("serve", "serve a published pipeline", SERVE),
        ("join", "join the ops center and exit", JOIN),
        ("status", "tell what the engine does", STATUS),
        ("pull", "fetch the pipeline and exit", PULL),
        ("infer", "answer one request and exit", INFER),
        ("rollback", "serve the publish before again", ROLLBACK),
        ("verify", "check everything that is stored", VERIFY),
        ("version", "print the version", "Print the version and exit."),
    ):
        made = commands.add_parser(name, help=short, description=long, formatter_class=form)
        if name == "status":
            made.add_argument("--json", action="store_true", help="print what /status.json says")
        if name == "infer":
            made.add_argument("--type", default="", help="content type of the request (default: told by how it begins)")
            made.add_argument("folder", type=Path, help="with manifest.json and the files that it names")
            made.add_argument("request", type=Path, nargs="?", help="file; stdin without it")
    chosen = parser.parse_args(arguments)
    verbs: dict[str, Callable[[], int]] = {
        "serve": serve,
        "join": join,
        "status": lambda: status(as_json=chosen.json),
        "pull": pull,
        "infer": lambda: infer(chosen.folder, chosen.request, chosen.type),
        "rollback": rollback,
        "verify": verify,
        "version": version,
    }
    try:
        return verbs[chosen.command]()
    except SettingsError as error:
        print(f"opsengine: {error}", file=sys.stderr)
        return 2
    except EngineError as error:
        print(f"opsengine: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = error.filename or "PERSIST_DIR"
        print(f"opsengine: {what} cannot be used ({error.strerror}): check its disk and its owner.", file=sys.stderr)
        return 1


def serve() -> int:
    """Serve with the settings of the environment until SIGTERM or SIGINT."""
    chosen = settings.read(os.environ)
    logformat.start(chosen.log_format, debug=chosen.debug)
    privileges.drop(os.environ.get("RUN_AS") or None, chosen.persist_dir)
    memory.be_frugal()
    machine.open_files()
    signal.signal(local.ROLL_BACK, signal.SIG_IGN)  # it would end a process that is not ready for it yet
    engine = Engine(chosen)
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    signal.signal(local.ROLL_BACK, lambda *_: engine.roll_back())
    return engine.run()


def join() -> int:
    """Join, and say as whom."""
    print(_with_state(local.join, serves=False))
    return 0


def pull() -> int:
    """Fetch, and print the digest."""
    print(_with_state(local.pull))
    return 0


def infer(folder: Path, request: Path | None, content_type: str) -> int:
    """Print the answer to one request."""
    try:
        body = request.read_bytes() if request else sys.stdin.buffer.read()
    except OSError as error:
        raise SettingsError(f"{request} cannot be read ({error.strerror}).") from error
    try:
        answer = once.answer(folder, body, content_type)
    except RequestError as error:
        print(f"opsengine: {error}", file=sys.stderr)
        return REFUSED
    sys.stdout.buffer.write(answer)
    return 0


def rollback() -> int:
    """Go back to the publish before, in the engine that runs here or at its next start; print the digest."""
    chosen = settings.read(os.environ, serves=False)
    try:
        guard = lock(chosen.persist_dir)
    except InUse:
        process = holder(chosen.persist_dir)
        if process is None:
            raise
        print(local.roll_back_running(chosen, process))
        return 0
    try:
        print(local.roll_back(chosen))
    finally:
        os.close(guard)
    return 0


def verify() -> int:
    """Check what is stored, a line each, faults to stderr."""
    chosen = settings.read(os.environ, serves=False)
    findings = local.verify(chosen)
    for finding in findings:
        if finding.fault:
            print(f"{finding.what}: {finding.fault}.", file=sys.stderr)
        else:
            print(f"{finding.what}: right.")
    if not findings:
        print("Nothing is stored.")
    return 1 if any(finding.fault for finding in findings) else 0


def status(*, as_json: bool) -> int:
    """The state in words, or as JSON."""
    chosen = settings.read(os.environ, serves=False)
    told = local.ask(chosen)
    if told is None:
        lines = [f"No engine answers on port {chosen.port}.", *local.remembered(Path(chosen.persist_dir))]
        print(orjson.dumps({"running": False, "told": lines}).decode() if as_json else "\n".join(lines))
        return DOWN
    if as_json:
        print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    else:
        print(views.headline(told)[0])
        for head, sentence, _ in views.sentences(told):
            print(f"{head}: {sentence}")
    return 0 if told["serving"] else 1


def version() -> int:
    """Print the version."""
    print(f"opsengine {__version__}")
    return 0


def _with_state(work: Callable[[Settings], str], *, serves: bool = True) -> str:
    """Do something to PERSIST_DIR while no engine runs on it. `serves` as in settings.read."""
    chosen = settings.read(os.environ, serves=serves)
    logformat.start(chosen.log_format, debug=chosen.debug)
    privileges.drop(os.environ.get("RUN_AS") or None, chosen.persist_dir)
    guard = lock(chosen.persist_dir)
    try:
        return work(chosen)
    finally:
        os.close(guard)


if __name__ == "__main__":
    sys.exit(main())
