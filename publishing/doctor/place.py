"""Where the doctor works, and what it has left there so far."""

from collections.abc import Callable
from dataclasses import dataclass, field

from publishing.doctor.report import Report
from publishing.oci import auth
from publishing.oci.client import Client
from publishing.oci.content import Blob
from publishing.oci.uploads import Target


@dataclass
class Place:
    """A repository of a registry. `clock` is in epoch seconds; `made` has digests of manifests, newest first."""

    client: Client
    repository: str
    report: Report
    clock: Callable[[], float]
    made: list[str] = field(default_factory=list)

    @property
    def pull_scopes(self) -> tuple[str, ...]:
        """What a read asks for."""
        return (auth.pull_scope(self.repository),)

    def target(self, blob: Blob) -> Target:
        """Where a blob goes."""
        return Target(self.client, self.repository, blob.title)
