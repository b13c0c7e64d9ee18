"""Repository names, tags and digests: OCI distribution-spec 1.1 ("Pulling manifests"), image-spec 1.1 ("Digests")."""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from registry.errors import DigestInvalid, NameInvalid

# A component never begins with "_", so the storage's folders (`_blobs`, `_tags`) cannot be mistaken for a repository.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# The specification's advice: many clients limit host and name together to 255 characters.
_NAME_LIMIT = 255
_HEX_LENGTHS = {"sha256": 64, "sha512": 128}


class Hash(Protocol):
    """What this app needs of a `hashlib` object."""

    @property
    def name(self) -> str: ...
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Digest:
    """A checked content digest: its parts are safe as file names."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<64 hex>` or `sha512:<128 hex>`. Raises DigestInvalid for anything else."""
        algorithm, _, encoded = text.partition(":")
        length = _HEX_LENGTHS.get(algorithm)
        if length is None or len(encoded) != length or not set(encoded) <= set("0123456789abcdef"):
            raise DigestInvalid(f"{text[:200]!r} is not a sha256 or sha512 digest (lower-case hexadecimal).")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The canonical (sha256) digest of `content`."""
        return cls("sha256", hashlib.sha256(content).hexdigest())

    def matches(self, content: bytes) -> bool:
        """Whether `content` has this digest."""
        return hashlib.new(self.algorithm, content).hexdigest() == self.encoded

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def check_name(name: str) -> str:
    """Return `name` when it is a repository name, else raise NameInvalid."""
    if len(name) > _NAME_LIMIT or not _NAME.fullmatch(name):
        raise NameInvalid(
            f"{name[:300]!r} is not a repository name: use lower-case letters, digits and single separators (. _ -), "
            f"parts divided by '/', at most {_NAME_LIMIT} characters."
        )
    return name


def is_tag(text: str) -> bool:
    """Whether `text` may be a tag: at most 128 letters, digits and `._-`, beginning with a letter, digit or `_`."""
    return _TAG.fullmatch(text) is not None
