"""HTTP/1.1 as an engine speaks it, over kept connections, at a tenth of a client library's cost."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

CONNECTIONS = 32


class Connection:
    """One kept connection to the center."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def call(self, path: str, body: bytes, token: str = "") -> tuple[int, bytes]:
        """The status and body of a POST."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{authorization}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 : lower.index(b"\r\n", at)]) if at >= 0 else 0
        return int(head[9:12]), await self.reader.readexactly(length)

    def close(self) -> None:
        if self.writer:
            self.writer.close()


class Times:
    """How long calls took (seconds), and which were refused."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.refused: list[bytes] = []
        self.wall = 0.0

    @property
    def per_second(self) -> float:
        return len(self.took) / self.wall

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


Work = Callable[[Connection], Awaitable[tuple[int, bytes]]]


async def each(port: int, works: Iterable[Work], *, rate: float = 0.0, connections: int = CONNECTIONS) -> Times:
    """Does every work once; with `rate` (a second) each has its moment, and waiting for it to begin counts as well."""
    times, begin = Times(), time.perf_counter()
    numbered = iter(enumerate(works))

    async def worker() -> None:
        connection = Connection(port)
        for number, work in numbered:
            due = begin + number / rate if rate else time.perf_counter()
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            status, body = await work(connection)
            times.took.append(time.perf_counter() - due)
            if status not in (200, 201, 304):
                times.refused.append(body[:200])
        connection.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    times.wall = time.perf_counter() - begin
    return times


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
