"""EDGE_BUNDLE: base64 of lines `export K=V`, made by the center when an edge is added (contract/bundle.txt)."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from opsengine import locations
from opsengine.errors import SettingsError

REQUIRED = ("EDGE_NAME", "JOIN_TOKEN", "OPSCENTER_HOST")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle says. `center_url` has a scheme and a path, no slash at the end."""

    edge_name: str
    join_token: str
    center_url: str
    pipeline_url: str | None
    oci_registry: str | None

    def __repr__(self) -> str:
        return f"Bundle(edge_name={self.edge_name!r}, center_url={self.center_url!r})"  # never the token


def parse(text: str) -> Bundle:
    """Read a bundle. Lines are only split at the first `=`, never evaluated; order and unknown keys do not matter.

    Raises SettingsError with what is wrong.
    """
    values = _values(_decoded(text))
    missing = [key for key in REQUIRED if not values.get(key)]
    if missing:
        raise SettingsError(
            f"EDGE_BUNDLE lacks {', '.join(missing)}: copy the whole bundle as the ops center showed it."
        )
    if values.get("BUNDLE_VERSION", "1") != "1":
        raise SettingsError(
            f"EDGE_BUNDLE has version {values['BUNDLE_VERSION']}, this engine reads version 1: update the engine."
        )
    return Bundle(
        edge_name=values["EDGE_NAME"],
        join_token=values["JOIN_TOKEN"],
        center_url=center_url(values["OPSCENTER_HOST"]),
        pipeline_url=values.get("PIPELINE_URL") or None,
        oci_registry=values.get("OCI_REGISTRY") or None,
    )


def center_url(host: str) -> str:
    """The base URL for OPSCENTER_HOST: `host[:port]/edge`, a bare host gets `/edge`, no scheme means https."""
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
    except ValueError:  # a bracket that is not closed
        parts = urlsplit("")
    if parts.scheme not in locations.SCHEMES or not locations.is_host(parts.netloc) or parts.query:
        raise SettingsError(f"OPSCENTER_HOST is {host!r}: it must look like opscenter.example.com/edge.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/edge'}"


def _decoded(text: str) -> str:
    packed = "".join(text.split())  # copied text often carries line breaks
    try:
        # Padding is lost as easily as it is added.
        return base64.b64decode(packed.rstrip("=") + "=" * (-len(packed.rstrip("=")) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise SettingsError("EDGE_BUNDLE is not base64: copy the whole bundle as the ops center showed it.") from None


def _values(text: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        key, found, value = line.strip().removeprefix("export ").partition("=")
        if found:
            values[key.strip()] = value.strip().strip("'\"")
    return values
