"""Where a published pipeline is: `host/repository[:tag][@digest]`, and the address of a registry."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from opsengine.errors import RegistryError
from opsengine.store import DIGEST

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>\d{1,5}))?")
REPOSITORY = re.compile(r"[a-z0-9._/-]+")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # distribution-spec 1.1, "Pulling manifests"
HIGHEST_PORT = 65535
SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Reference:
    """`host/repository[:tag][@digest]`."""

    host: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest if known, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def name(self) -> str:
        """The pipeline's name, by which the center calls the repository."""
        return self.repository.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def parse_reference(text: str, default_host: str | None = None) -> Reference:
    """Read a pipeline location; `default_host` is put before one that names no registry. Raises RegistryError."""
    rest = re.sub(r"^(oci|https?)://", "", text.strip())
    head = rest.split("/", 1)[0]
    if not ("." in head or ":" in head or head == "localhost") and default_host:
        rest = f"{default_host}/{rest}"
    host, _, path = rest.partition("/")
    path, _, digest = path.partition("@")
    repository, _, tag = path.partition(":")
    is_right = is_host(host) and REPOSITORY.fullmatch(repository) and (not tag or TAG.fullmatch(tag))
    if not is_right or (digest and not DIGEST.fullmatch(digest)):
        raise RegistryError(
            f"{text!r} is not a pipeline location: it must look like registry.example.com/ml/pipelines/name:version."
        )
    return Reference(host, repository, tag or None, digest or None)


def is_host(text: str) -> bool:
    """Whether this can be `host[:port]`."""
    found = HOST.fullmatch(text)
    return found is not None and 1 <= int(found["port"] or 1) <= HIGHEST_PORT


def registry_host(address: str) -> str | None:
    """`host[:port]` of a registry's address, with or without a scheme and a path; None where there is none in it."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ("", *SCHEMES) and is_host(parts.netloc) else None


def proxy(address: str) -> tuple[str, str | None] | None:
    """The URL of a proxy and its `user:password`, if there is one; None where this is no HTTP proxy's address.

    Without a scheme it is taken for http, as other programs do.
    """
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
    except ValueError:
        return None
    login, _, host = parts.netloc.rpartition("@")
    if parts.scheme not in SCHEMES or not is_host(host):
        return None
    return f"{parts.scheme}://{host}", unquote(login) or None
