"""A publish as commands and the SDK's shapes show it. Pure."""

from dataclasses import dataclass, field

from publishing.engine_config import Needs

CREDENTIALS = ("OCI_USERNAME", "OCI_PASSWORD")  # of the registry; always the reader's own shell variables


@dataclass(frozen=True)
class PublishView:
    """What the commands and the SDK's shapes need to know of a publish. URLs are empty until it is Published."""

    pipeline: str
    version: str
    registry: str
    plain_http: bool
    pipeline_url: str
    engine_url: str
    chart_url: str
    chart_version: str
    chart_digest: str
    needs: Needs
    image_url: str = ""  # engine and pipeline in one, where asked for
    image_digest: str = ""
    pipeline_digest: str = ""
    signed: bool = False
    edge: str = ""  # the name of the edge that is to run it
    moved: bool = False  # it came from another registry, which its chart still names

    @property
    def runs_from(self) -> str:
        """The image that chart and GitOps files start: the one that holds the pipeline too, where there is one."""
        return self.image_url or self.engine_url


@dataclass(frozen=True)
class Command:
    """`title` names the tool; `text` is what is typed, or the content of the file that the title names.

    `language` is `sh` for what is typed, `yaml` for a file.
    """

    title: str
    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Helm:
    """The SDK's `helm` of a publish. `reference` is pullable by digest."""

    reference: str
    chart: str
    version: str
    values: dict[str, str] = field(default_factory=dict)
