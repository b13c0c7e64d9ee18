"""What an edge said of itself at its last check-in, as values and as sentences. Pure: the report is given."""

import dataclasses
from collections.abc import Mapping
from typing import Any

LITTLE_DISK = 0.1
MUCH_MEMORY = 0.9
# Row times are corrected by the offset; people should know when it is more than a slow network explains.
CLOCK_OFF = 60_000  # ms
UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))
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
        up = f", up {_span(health.uptime)}" if health.uptime is not None else ""
        found.append(f"Engine {health.engine_version} on {health.arch}{up}.")
    if health.clock_offset is not None and abs(health.clock_offset) >= CLOCK_OFF:
        way = "ahead" if health.clock_offset > 0 else "behind"
        found.append(
            f"Its clock is {_span(abs(health.clock_offset) // 1000)} {way}; nothing stops, "
            "but set it, for its rows carry its time."
        )
    if health.memory and health.memory_used is not None:
        much = ": give it more, or it will be ended" if health.memory_used >= MUCH_MEMORY * health.memory else ""
        found.append(f"It uses {_size(health.memory_used)} of {_size(health.memory)} memory{much}.")
    if health.disk_free is not None:
        low = ": make room, or it must shed rows" if health.disk_free < LITTLE_DISK else ""
        found.append(f"{health.disk_free:.0%} of its disk is free{low}.")
    if health.log_backlog:
        found.append(f"{health.log_backlog:,} of its rows wait at the site to be sent.")
    if health.shed_rows:
        found.append(f"It had to shed {health.shed_rows:,} rows for want of room; each is accounted for as a gap.")
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
    return f"{count:,} bytes"


def _span(seconds: int) -> str:
    for unit, length in UNITS:
        if seconds >= length:
            count = seconds // length
            return f"{count:,} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
