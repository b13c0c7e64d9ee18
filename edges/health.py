"""What an edge said of itself at its last check-in, as values and as sentences. Pure: the report is given."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

LITTLE_DISK = 0.1
MUCH_MEMORY = 0.9
# Row times are corrected by the offset; people should know when it is more than a slow network explains.
CLOCK_OFF = 60_000  # ms
UNITS = (
    (ngettext_lazy("%(count)s day", "%(count)s days", "number"), 86_400),
    (ngettext_lazy("%(count)s hour", "%(count)s hours", "number"), 3600),
    (ngettext_lazy("%(count)s minute", "%(count)s minutes", "number"), 60),
)
SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20))


@dataclasses.dataclass(frozen=True)
class Health:
    """None where the edge has not said it. Times are in ms, `uptime` in seconds, sizes in bytes.

    `disk_free` is a share of the disk; `memory` is what the engine may use.
    """

    reported_at: int | None
    engine_version: str | None
    arch: str | None
    uptime: int | None
    clock_offset: int | None
    cpus: int | None
    memory: int | None
    memory_used: int | None
    disk_free: float | None
    log_backlog: int | None
    shed_rows: int | None


def of_report(report: Mapping[str, Any]) -> Health:
    """Reads a stored report, which older releases may have stored with less in it."""
    engine, logs, disk, resources = (_part(report, name) for name in ("engine", "logs", "disk", "resources"))
    started, clock = engine.get("started_at"), report.get("clock")
    last, acked = logs.get("last_sequence"), logs.get("acked")
    free, total = disk.get("free"), disk.get("total")
    return Health(
        reported_at=_whole(report.get("at")),
        engine_version=engine.get("version"),
        arch=engine.get("arch"),
        # Both by the edge's own clock, so it does not matter how wrong that is.
        uptime=max(0, clock - started) // 1000 if isinstance(clock, int) and isinstance(started, int) else None,
        clock_offset=_whole(report.get("clock_offset")),
        cpus=_whole(resources.get("cpus")),
        memory=_whole(resources.get("memory")),
        memory_used=_whole(resources.get("memory_used")),
        disk_free=free / total if isinstance(free, int) and isinstance(total, int) and total else None,
        log_backlog=max(0, last - acked) if isinstance(last, int) and isinstance(acked, int) else None,
        shed_rows=_whole(logs.get("shed")),
    )


def sentences(health: Health) -> list[str]:
    """What people should know of it; nothing when it never reported."""
    found = []
    if health.engine_version:
        told = {"version": health.engine_version, "arch": health.arch}
        if health.uptime is None:
            found.append(_("Engine %(version)s on %(arch)s.") % told)
        else:
            found.append(_("Engine %(version)s on %(arch)s, up %(time)s.") % (told | {"time": _span(health.uptime)}))
    if health.clock_offset is not None and abs(health.clock_offset) >= CLOCK_OFF:
        ahead = _("Its clock is %(time)s ahead; nothing stops, but set it, for its rows carry its time.")
        behind = _("Its clock is %(time)s behind; nothing stops, but set it, for its rows carry its time.")
        found.append((ahead if health.clock_offset > 0 else behind) % {"time": _span(abs(health.clock_offset) // 1000)})
    if health.memory and health.memory_used is not None:
        told = {"used": _size(health.memory_used), "all": _size(health.memory)}
        much = _("It uses %(used)s of %(all)s memory: give it more, or it will be ended.")
        enough = _("It uses %(used)s of %(all)s memory.")
        found.append((much if health.memory_used >= MUCH_MEMORY * health.memory else enough) % told)
    if health.disk_free is not None:
        low, free = (
            _("%(part)s of its disk is free: make room, or it must shed rows."),
            _("%(part)s of its disk is free."),
        )
        found.append((low if health.disk_free < LITTLE_DISK else free) % {"part": f"{health.disk_free:.0%}"})
    if health.log_backlog:
        found.append(_("%(count)s of its rows wait at the site to be sent.") % {"count": f"{health.log_backlog:,}"})
    if health.shed_rows:
        shed = _("It had to shed %(count)s rows for want of room; each is accounted for as a gap.")
        found.append(shed % {"count": f"{health.shed_rows:,}"})
    return found


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = report.get(name)
    return part if isinstance(part, Mapping) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _size(count: int) -> str:
    for unit, size in SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return _("%(count)s bytes") % {"count": f"{count:,}"}


def _span(seconds: int) -> str:
    for unit, length in UNITS:
        if seconds >= length:
            count = seconds // length
            return str(unit % {"number": count, "count": f"{count:,}"})
    return _("less than a minute")
