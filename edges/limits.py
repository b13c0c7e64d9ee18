"""How often an edge or an address may call the device API: counted in Redis, or in this process where there is none."""

import dataclasses
import functools
import logging
import threading
import time

import redis
from django.conf import settings
from redis.commands.core import Script

from common.errors import RateLimited

logger = logging.getLogger(__name__)

WINDOW = 60  # seconds, from the first call that is counted
REDIS_SECONDS = 0.2  # a limit must not cost more than the call that it limits
# All in one go: a counter never stays without its end, and a call costs one way to Redis and back. How much of a window
# is left is asked only for who has done too many.
COUNTING = """
local answers = {}
for at, key in ipairs(KEYS) do
  local times = redis.call('INCR', key)
  if times == 1 then redis.call('EXPIRE', key, ARGV[1]) end
  answers[2 * at - 1] = times
  answers[2 * at] = times > tonumber(ARGV[at + 1]) and redis.call('TTL', key) or 0
end
return answers
"""
# Callers counted at once in this process. Beyond it all begin anew: better than to grow, or to refuse strangers.
CALLERS = 200_000


@dataclasses.dataclass(frozen=True)
class Count:
    """One more call of `who`, of which there may be `limit` in a window."""

    name: str
    who: str
    limit: int


class _Local:
    """Counts of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def add(self, counts: tuple[Count, ...]) -> list[tuple[int, float]]:
        """Counts each; how often it was counted in its window, and how many seconds of it are left."""
        now = time.monotonic()
        with self._lock:
            return [self._one(count, now) for count in counts]

    def clear(self) -> None:
        with self._lock:
            self._windows.clear()

    def _one(self, count: Count, now: float) -> tuple[int, float]:
        key = (count.name, count.who)
        begin, times = self._windows.get(key, (now, 0))
        if now >= begin + WINDOW:
            begin, times = now, 0
        if len(self._windows) >= CALLERS:
            self._windows.clear()
        self._windows[key] = (begin, times + 1)
        return times + 1, begin + WINDOW - now


_local = _Local()


def spend(*counts: Count) -> None:
    """Counts a call for each. Raises `RateLimited` when one has done too many."""
    for count, (times, left) in zip(counts, _added(counts), strict=True):
        if times > count.limit:
            seconds = max(1, round(left))
            raise RateLimited(
                f"Too many {count.name}, more than {count.limit} a minute: try again in {seconds} s.",
                retry_after=seconds,
            )


def joins(address: str) -> Count:
    """A try to join, successful or not: tokens must not be guessed."""
    return Count("joins from this address", address, settings.EDGE_JOINS_PER_MINUTE)


def calls_from(address: str) -> Count:
    """Any call of the device API."""
    return Count("calls from this address", address, settings.EDGE_ADDRESS_CALLS_PER_MINUTE)


def calls_of(edge_id: str) -> Count:
    """A call of an edge that proved who it is."""
    return Count("calls of this edge", edge_id, settings.EDGE_CALLS_PER_MINUTE)


def forget() -> None:
    """Begins anew in this process."""
    _local.clear()


def _added(counts: tuple[Count, ...]) -> list[tuple[int, float]]:
    client = _client(settings.REDIS_URL)
    if client is None:
        return _local.add(counts)
    try:
        return _shared(client, counts)
    except redis.RedisError as exc:
        # An edge must not be shut out because the counter is.
        logger.warning("calls are counted per process only, Redis does not answer: %s", type(exc).__name__)
        return _local.add(counts)


def _shared(client: redis.Redis, counts: tuple[Count, ...]) -> list[tuple[int, float]]:
    keys = [f"opscenter:edge-limit:{count.name}:{count.who}" for count in counts]
    answers = _script(client)(keys, [WINDOW, *(count.limit for count in counts)])
    return [(int(times), float(left)) for times, left in zip(answers[::2], answers[1::2], strict=True)]


@functools.lru_cache(maxsize=1)
def _script(client: redis.Redis) -> Script:
    return client.register_script(COUNTING)


@functools.lru_cache(maxsize=1)
def _client(url: str) -> redis.Redis | None:
    if not url:
        return None
    return redis.Redis.from_url(url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)
