"""Names of images as people write them, read by Docker's rules."""

import re
from dataclasses import dataclass

from publishing.oci.faults import RegistryFault

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Reference:
    """`host/repository[:tag][@digest]`; `tag` is `latest` where neither was given."""

    host: str
    repository: str
    tag: str
    digest: str

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest where there is one."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        """The last part of the repository."""
        return self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """Reads a reference; without a registry it is Docker Hub's. Raises `RegistryFault`."""
    host, slash, path = text.strip().partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", text.strip() if slash else f"library/{text.strip()}"
    return within(host, path)


def within(host: str, path: str) -> Reference:
    """Reads `repository[:tag][@digest]` of a registry that is known. Raises `RegistryFault`."""
    rest, at, digest = path.partition("@")
    repository, _, tag = rest.partition(":")
    is_right = _REPOSITORY.match(repository) and (not tag or _TAG.match(tag)) and (not at or _DIGEST.match(digest))
    if not is_right:
        raise RegistryFault(f"{path[:200]!r} is no name of an image: give registry/repository:tag, or …@sha256:….")
    return Reference(host, repository, tag or ("" if digest else "latest"), digest)
