"""How one registry wants to be written to: what the doctor found out, and what a push learns on its way."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

MIB = 1024 * 1024
CHUNK_BYTES = 16 * MIB
SMALLEST_CHUNK = 64 * 1024  # a limit below this is not one that a registry would work with
GHCR_PATCH = 4 * MIB  # GHCR refuses larger PATCH bodies; a PUT may be of any size


@dataclass
class Plan:
    """Safe to share between the threads of one push.

    `most_body` is the largest body the registry takes in one request, None while no limit is known: larger blobs go
    in chunks. `chunk_bytes` is what one PATCH carries. `referrers_tag` says that there is no referrers API, so the
    fallback tag is kept. `media_types` has, by kind of manifest, whether it is taken.
    """

    most_body: int | None = None
    chunk_bytes: int = CHUNK_BYTES
    chunked: bool = True
    mounts: bool = True
    referrers_tag: bool = False
    media_types: dict[str, bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, host: str, stored: Mapping[str, Any] | None = None) -> Self:
        """The plan for a registry: what is known of its kind, over which goes what was found out before."""
        is_ghcr = re.search(r"(^|\.)ghcr\.io$", host.partition(":")[0]) is not None
        plan = cls(chunk_bytes=GHCR_PATCH if is_ghcr else CHUNK_BYTES, referrers_tag=is_ghcr)
        for name, value in (stored or {}).items():
            if name in _STORED:
                setattr(plan, name, value)
        plan.chunk_bytes = max(SMALLEST_CHUNK, min(plan.chunk_bytes, GHCR_PATCH if is_ghcr else plan.chunk_bytes))
        return plan

    def stored(self) -> dict[str, Any]:
        """The plan as JSON, as `of` takes it back."""
        return {name: getattr(self, name) for name in _STORED}

    def is_chunked_for(self, size: int) -> bool:
        """Whether a blob of this many bytes goes in chunks."""
        return self.chunked and self.most_body is not None and size > self.most_body

    def shrink(self, size: int) -> bool:
        """Learns that a body of this size was too large; False when there is nothing smaller to try."""
        with self._lock:
            if not self.chunked or size <= SMALLEST_CHUNK:
                return False
            self.chunk_bytes = max(SMALLEST_CHUNK, min(self.chunk_bytes, size // 2))
            self.most_body = self.chunk_bytes
            return True


_STORED = ("most_body", "chunk_bytes", "chunked", "mounts", "referrers_tag", "media_types")
