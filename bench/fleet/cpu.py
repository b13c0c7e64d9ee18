"""CPU seconds of the processes that a measurement keeps busy, from /proc."""

import os
import time
from collections import Counter
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def used(web: int) -> Counter[str]:
    """CPU seconds so far of the web server (by its process id), of PostgreSQL, of Redis, and of this simulator."""
    parents, names, spent = {}, {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            pid = int(folder.name)
            # Children that ended count with their parent, such as a database session that is over.
            parents[pid], names[pid] = int(rest[1]), name
            spent[pid] = sum(int(word) for word in rest[11:15]) / TICK
    found: Counter[str] = Counter(simulator=time.process_time())
    bench = os.getppid()
    for pid, seconds in spent.items():
        line = _ancestors(pid, parents)
        if web in line:
            found["web"] += seconds
        elif bench in line and names[pid].startswith("postgres"):
            found["postgres"] += seconds
        elif bench in line and names[pid].startswith("redis"):
            found["redis"] += seconds
    return found


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    line = set()
    while pid and pid not in line:
        line.add(pid)
        pid = parents.get(pid, 0)
    return line
