"""What the command line does without serving: join, fetch, check, and tell the state, on the same PERSIST_DIR."""

import errno
import http.client
import os
import signal
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from opsengine import fetch, health, included, privileges, state, trial
from opsengine.center import Center
from opsengine.errors import EngineError, PipelineError, SettingsError, StateError
from opsengine.identity import Identity
from opsengine.settings import Settings
from opsengine.signatures import Proofs
from opsengine.store import ContentStore

ASK_SECONDS = 5.0
LARGEST_ANSWER = 1 << 20
ROLL_BACK = signal.SIGUSR1  # what a running engine hears as the wish to roll back
ROLL_BACK_SECONDS = 30.0  # the model before is loaded and warmed first
NOTHING_BEFORE = "There is no publish before the current one here: nothing was changed."


@dataclass(frozen=True, slots=True)
class Finding:
    """One stored publish or blob: what it is, and what is wrong with it (None: nothing)."""

    what: str
    fault: str | None


def join(settings: Settings) -> str:
    """Join the ops center, unless this bundle was used here already; returns the edge's name and id in words.

    Raises CenterRefused, CenterUnavailable, StateError, or SettingsError without a bundle.
    """
    if settings.bundle is None:
        raise SettingsError("EDGE_BUNDLE is not set: add an edge in the ops center and give its bundle here.")
    center = Center(settings.bundle, Identity(settings.persist_dir / "identity"))
    is_new = not center.has_spent_bundle
    if is_new:
        center.join()
    session = center.session
    assert session is not None
    return f"{'Joined' if is_new else 'Joined already'} as {session.edge_name} ({session.edge_id})."


def pull(settings: Settings) -> str:
    """Bring PIPELINE_URL into the store, to be served at the next start; returns its digest.

    Raises RegistryError, PipelineError.
    """
    store, location = _store(settings), settings.pipeline_url
    digest = fetch.fetch(location, settings.pipeline_digest, settings.registry, store, _proofs(settings))
    served = _served(settings).activated(state.Publish(location, digest), location)
    state.save(settings.persist_dir / "served.json", served)
    return digest


def roll_back(settings: Settings) -> str:
    """Serve the publish before from the next start on; returns its digest. Raises PipelineError if there is none."""
    folder, served = settings.persist_dir, _served(settings)
    active, previous = served.active, served.previous
    if active is None or previous is None:
        raise PipelineError(NOTHING_BEFORE)
    if not fetch.is_intact(previous.digest, _store(settings)):
        raise PipelineError(f"The copy of {previous.digest} is damaged or not complete: nothing was changed.")
    trial.Ledger(folder / "trial.json").reject(active.digest, trial.taken_back(trial.BY_HAND))
    state.save(folder / "served.json", state.Served(previous, None, served.given))
    return previous.digest


def roll_back_running(settings: Settings, process: int) -> str:
    """Have the engine that runs as `process` serve the publish before; returns its digest.

    Raises PipelineError if there is none, StateError if it does not within some seconds: its log says why.
    """
    if _served(settings).previous is None:
        raise PipelineError(NOTHING_BEFORE)
    before = (ask(settings) or {}).get("serving") or {}
    try:
        os.kill(process, ROLL_BACK)
    except OSError as error:
        raise StateError(f"The running engine cannot be told ({error.strerror}): run this as its user.") from error
    end = time.monotonic() + ROLL_BACK_SECONDS
    while time.monotonic() < end:
        time.sleep(0.2)
        now = (ask(settings) or {}).get("serving") or {}
        if now.get("digest") and now["digest"] != before.get("digest"):
            return str(now["digest"])
    raise StateError(f"The engine did not roll back within {ROLL_BACK_SECONDS:g} seconds: see its log.")


def verify(settings: Settings) -> list[Finding]:
    """Read every stored blob again, and look at what the publishes that are served need. Deletes nothing.

    What this user may not read is not called damaged. Raises StateError where that is what tells what is served.
    """
    with _reading():
        if not stat.S_ISDIR(_mode(settings.persist_dir / "store")):
            return []
        store, proofs = _store(settings), _proofs(settings)
        found, faulty = [], {}
        for digest, right in store.check_all():
            fault = _damage(right)
            found.append(Finding(digest, fault))
            if fault:
                faulty[digest] = isinstance(right, PermissionError)
        for publish in _served(settings).digests:
            found.append(Finding(f"publish {publish}", _fault(publish, store, proofs, faulty)))
        return found


def _damage(right: bool | OSError) -> str | None:
    if isinstance(right, PermissionError):
        return privileges.refusal(right)
    if isinstance(right, OSError):
        return f"it cannot be read on this disk ({right.strerror})"
    return None if right else "its content is damaged"


def _fault(publish: str, store: ContentStore, proofs: Proofs, faulty: dict[str, bool]) -> str | None:
    """What is wrong with a publish. `faulty`: of a blob whether it only may not be read by this user."""
    try:
        needed = fetch.needed_blobs(publish, store)
        if closed := sum(faulty.get(digest, False) for digest in needed):
            return f"{closed} of its files cannot be read by user {os.geteuid()}"
        if lost := sum(digest in faulty or not store.has(digest) for digest in needed):
            return f"damaged or missing files: {lost} (the engine fetches them again)"
        return None if proofs.has(publish, strict=True) else "it has no signature that holds, and one is required"
    except PermissionError as error:
        return privileges.refusal(error)
    except (EngineError, OSError, ValueError):
        return "its manifest is damaged or missing"


def ask(settings: Settings) -> dict[str, Any] | None:
    """`/status.json` of the engine that runs on this machine, None when none answers."""
    connection = http.client.HTTPConnection(health.near(settings.host), settings.port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/status.json")
        answer = connection.getresponse()
        told = orjson.loads(answer.read(LARGEST_ANSWER)) if answer.status == 200 else None
        return told if isinstance(told, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def remembered(folder: Path) -> list[str]:
    """What PERSIST_DIR tells of an engine that is down, in sentences. Changes nothing there. Raises StateError."""
    with _reading():
        if not stat.S_ISDIR(_mode(folder)):
            return [f"There is no {folder}: no engine ran here yet."]
        told = []
        if stat.S_ISDIR(_mode(folder / "identity")):
            session = Identity(folder / "identity").session()
            told.append(f"Edge {session.edge_name}, id {session.edge_id}." if session else "Not joined yet.")
        served = state.load(folder / "served.json", strict=True)
        told.append(
            f"Served last: {served.active.location} ({served.active.digest})." if served.active else "Served nothing."
        )
        return [*told, *_log(folder / "logs" / "rows.sqlite")]


def _log(path: Path) -> list[str]:
    """How far the log is. SQLite may not open it for a user who may not write beside it either."""
    if not _mode(path):
        return []
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            values = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('last', 'acked', 'shed')").fetchall())
        finally:
            db.close()
    except sqlite3.Error as error:
        owner = path.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise PermissionError(errno.EACCES, str(error), str(path)) from error
        return [f"The inference log cannot be read ({error})."]
    return [f"Log rows that wait to be sent: {values['last'] - values['acked']}, given up: {values['shed']}."]


@contextmanager
def _reading() -> Iterator[None]:
    """What this user may not read is told as just that. Raises StateError."""
    try:
        yield
    except PermissionError as error:
        raise StateError(f"{privileges.refusal(error)}.") from error


def _mode(path: Path) -> int:
    """Kind and rights of a file, 0 where there is none. Raises PermissionError where that cannot be seen."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _store(settings: Settings) -> ContentStore:
    return included.open_store(settings.persist_dir / "store", settings.pipeline_dir)


def _served(settings: Settings) -> state.Served:
    return state.load(settings.persist_dir / "served.json", strict=True)


def _proofs(settings: Settings) -> Proofs:
    return Proofs(settings.persist_dir / "store" / "signatures", settings.signing_key)
