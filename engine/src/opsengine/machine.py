"""What the machine, or the container's share of it, gives this process. All sizes in bytes."""

import os
import resource
from pathlib import Path

# cgroup v2, then v1; a container sees its own limit there.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


FILES = 4096  # open at a time: as many lines as are taken, the engine's own, and as much again


def open_files() -> None:
    """Have room for all lines, where the system lets a process ask for more: many give 1,024 files at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def memory_used() -> int:
    """Memory that this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):  # not Linux: the most it ever held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_limit() -> int:
    """What this process may use: the container's limit, else all there is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMITS:
        try:
            return min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return total
