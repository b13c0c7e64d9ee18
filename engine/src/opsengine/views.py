"""`/metrics`, `/status.json`, and `/status`: one page in words for whoever stands beside the machine.

The page has no script and no address outside of itself, so it works where there is no network.
"""

import html
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from opsengine import metrics
from opsengine.errors import FINAL_CODES
from opsengine.report import ERROR, RUNNING, Brief

Reply = tuple[int, str, bytes]
Facts = dict[str, Any]
Row = tuple[str, str, str]  # heading, sentence, state: "", "ok", "warn" or "bad"

HTML = "text/html; charset=utf-8"
SOON_HOURS = 48  # a session that lapses within this is worth a warning
LOW_DISK = 0.05
CLOCK_MS = 60_000  # beyond this a person should know
STYLE = """
:root{color-scheme:light dark;--text:#1b2430;--soft:#5b6675;--back:#f4f6f8;--card:#fff;--line:#dfe4ea;
--ok:#1a7f4b;--warn:#9a6700;--bad:#c2312b}
@media (prefers-color-scheme:dark){:root{--text:#e6eaf0;--soft:#9aa6b5;--back:#12161c;--card:#1b212a;--line:#2d3540;
--ok:#4ac98a;--warn:#e0b04a;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--back);color:var(--text);font:1rem/1.5 system-ui,sans-serif}
main{max-width:44rem;margin:0 auto}
h1{font-size:1.4rem;margin:.5rem 0 0}
p.lead{margin:.25rem 0 1rem;font-size:1.1rem}
dl{margin:0;background:var(--card);border:1px solid var(--line);border-radius:.5rem}
div.row{padding:.75rem 1rem;border-bottom:1px solid var(--line)}
div.row:last-child{border-bottom:0}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0}
dt,dd{overflow-wrap:anywhere}
.ok{color:var(--ok)}.warn{color:var(--warn);font-weight:600}.bad{color:var(--bad);font-weight:600}
footer{color:var(--soft);font-size:.85rem;margin:1rem 0}
a{color:inherit}
"""


class Views:
    """The state, shown; `facts` and `brief` are what `report.Reporter` tells."""

    def __init__(
        self, facts: Callable[[], Facts], render: Callable[[], bytes], brief: Callable[[], Brief] = Brief
    ) -> None:
        self._facts = facts
        self._render = render
        self.brief = brief

    def metrics(self) -> Reply:
        """Prometheus text."""
        return 200, metrics.CONTENT_TYPE, self._render()

    def json(self) -> Reply:
        """The facts."""
        return 200, "application/json", orjson.dumps(self._facts())

    def page(self) -> Reply:
        """The facts in words."""
        return 200, HTML, page(self._facts()).encode()


def page(told: Facts) -> str:
    """The status page of these facts."""
    name = (told["edge"] or {}).get("name") or "OpsCenter engine"
    title, lead = html.escape(str(name)), headline(told)
    rows = "".join(
        f'<div class="row"><dt>{html.escape(head)}</dt><dd class="{state}">{html.escape(text)}</dd></div>'
        for head, text, state in sentences(told)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{title}</h1><p class="lead {lead[1]}">{html.escape(lead[0])}</p><dl>{rows}</dl>'
        f"<footer>OpsCenter engine {html.escape(told['engine']['version'])}, {_when(told['now'])}. "
        'Reload for the state now. The same as <a href="status.json">JSON</a>.</footer></main></body></html>'
    )


def headline(told: Facts) -> tuple[str, str]:
    """The state in one sentence, and how bad it is."""
    if told["serving"] is None:
        why = f" {told['update']['error']}" if told["update"]["error"] else ""
        return f"Not serving: no pipeline is loaded yet.{why}", "bad"
    if down := _down(told):
        return f"Serving, but with status {ERROR}: {', '.join(down)}.", "warn"
    if told["logs"]["fault"] or told["disk"].get("fault"):
        return "Serving, but inferences cannot be logged.", "warn"
    if told["logs"]["held"]:
        return "Serving, and the inference log is held here.", "warn"
    if told["update"]["state"] == "failed":
        return "Serving, but the update to what it should serve failed.", "warn"
    if told["update"]["state"] != "idle":
        return "Serving, and an update is under way.", "ok"
    return "Serving.", "ok"


def sentences(told: Facts) -> Iterator[Row]:
    """What there is to know, a row each."""
    yield _identity(told["edge"])
    yield from _pipelines(told)
    if told["edge"]:
        yield from _contact(told)
    yield from _logs(told)
    yield from _machine(told)


def _identity(edge: Facts | None) -> Row:
    if edge is None:
        return "Identity", "No edge: started without an EDGE_BUNDLE, logs stay here.", ""
    known = f", id {edge['id']}" if edge["id"] else ", which has not joined yet"
    return "Identity", f"Edge {edge['name']}{known}. Its ops center is {edge['center']}.", ""


def _down(told: Facts) -> list[str]:
    """The models that cannot answer."""
    return [f"model {model['name']}" for model in told["models"] if model["fault"]]


def _pipelines(told: Facts) -> Iterator[Row]:
    serving, wanted, update = told["serving"], told["wanted"], told["update"]
    if serving:
        what = f"Pipeline {serving['pipeline']}, version {serving['pipeline_version']}"
        status, state = (ERROR, "bad") if _down(told) else (RUNNING, "ok")
        yield "Serves", f"{what} ({serving['digest']}), since {_when(serving['since'])}. Status {status}.", state
    else:
        yield "Serves", "Nothing.", "bad"
    for model in told["models"]:
        yield _model(model, is_loaded=serving is not None)
    known = wanted["digest"]
    # Without a digest it is a PIPELINE_URL, which is served unless something is under way or went wrong with it.
    is_same = serving and (known == serving["digest"] or (known is None and update["state"] == "idle"))
    yield "Should serve", "The same." if is_same else f"{wanted['location']} ({wanted['digest'] or 'any digest'}).", ""
    words = {
        "idle": ("No update is under way.", ""),
        "pulling": ("A new publish is being fetched.", ""),
        "warming": ("A new publish is being loaded and tried.", ""),
        "failed": (f"Failed: {update['error']}", "bad"),
    }
    yield "Update", *words[update["state"]]


def _model(model: Facts, *, is_loaded: bool) -> Row:
    text = f"Version {model['version']}. Status {model['status']}"
    if not model["fault"]:
        return f"Model {model['name']}", f"{text}.", "ok"
    again = " The next request starts it again." if is_loaded else ""
    return f"Model {model['name']}", f"{text}: {model['fault']}.{again}", "bad"


def _contact(told: Facts) -> Iterator[Row]:
    contact, offset = told["contact"], told["clock"]["offset_ms"]
    last = f"{_ago(told['now'] - contact['last'])} ago." if contact["last"] else "Never since this start."
    problem = f" {contact['problem']}" if contact["problem"] else ""
    yield "Last contact with the ops center", last + problem, "warn" if problem else "ok"
    yield _lapse(contact)
    refusal = contact["refusal"]
    told_refusal = f"{_when(refusal['at'])}: {refusal['message']} ({refusal['code']})" if refusal else "None."
    yield "Last refusal", told_refusal, "bad" if refusal else ""
    if offset is None:
        yield "Clock", "Not compared with the ops center yet.", ""
    else:
        side = "behind" if offset > 0 else "ahead of"
        is_off = abs(offset) > CLOCK_MS
        text = (
            f"{_ago(abs(offset))} {side} the ops center. It decides; this machine keeps serving."
            if is_off
            else "Right."
        )
        yield "Clock", text, "warn" if is_off else "ok"


def _lapse(contact: Facts) -> Row:
    hours = contact["hours_left"]
    if hours is None:
        return "Session", "Not joined yet.", ""
    when, refusal = _when(contact["lapses_at"]), contact["refusal"]
    if refusal and refusal["code"] in FINAL_CODES and refusal["at"] > (contact["last"] or 0):
        return "Session", "Ended by the ops center: a new EDGE_BUNDLE is needed. Inference goes on.", "bad"
    if hours <= 0:
        return "Session", f"Lapsed at {when}: a new EDGE_BUNDLE is needed. Inference goes on.", "bad"
    text = f"Lapses at {when}, in {hours:.0f} h, unless the ops center is reached before."
    return "Session", text, "warn" if hours < SOON_HOURS else "ok"


def _logs(told: Facts) -> Iterator[Row]:
    logs = told["logs"]
    used = f"{_size(logs['bytes'])} of {_size(logs['limit'])} are in use."
    if told["edge"]:
        waiting = f"Rows that wait to be sent: {logs['backlog']:,}. " if logs["backlog"] else "All rows are sent. "
    else:
        waiting = f"Rows written: {logs['last']:,}. "
    yield "Inference log", waiting + used, ""
    if logs["shed"]:
        yield "Rows given up", f"{logs['shed']:,}, each counted and told to the ops center as a gap.", "warn"
    if logs["held"]:
        yield "Rows are held here", f"{logs['held']} They are sent once it takes them again.", "warn"
    if logs["fault"]:
        yield "Log fault", logs["fault"], "bad"


def _machine(told: Facts) -> Iterator[Row]:
    disk, memory, traffic = told["disk"], told["engine"]["memory"], told["traffic"]
    if disk.get("fault"):
        yield "Disk fault", disk["fault"], "bad"
    is_low = disk["free"] < LOW_DISK * disk["total"]
    yield "Disk", f"{_size(disk['free'])} of {_size(disk['total'])} are free.", "warn" if is_low else ""
    yield "Memory", f"{_size(memory['used'])} in use, {_size(memory['limit'])} may be.", ""
    text = f"{traffic['requests']:,} since the start (rows: {traffic['rows']:,}, errors: {traffic['errors']:,})."
    if traffic["refused"]:
        text += f" Refused because too many waited: {traffic['refused']:,}."
    yield "Requests", text, ""
    yield "Running for", f"{_ago(told['engine']['uptime_seconds'] * 1000)}.", ""


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _ago(milliseconds: int) -> str:
    seconds = max(0, milliseconds // 1000)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}s"
    return f"{seconds} seconds" if seconds != 1 else "1 second"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
