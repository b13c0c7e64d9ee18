"""Which engine image a publish takes along, and where it is copied to. Pure."""

import json
from dataclasses import dataclass

from publishing.errors import UnusableEngineImage
from publishing.oci import references
from publishing.oci.faults import RegistryFault
from publishing.oci.references import Reference

ANY = "default"  # the key of the image for every other architecture


@dataclass(frozen=True)
class EngineCopy:
    """An engine image, and where it is copied to: repository and tag in the registry of publishes."""

    source: Reference
    repository: str
    tag: str


def chosen(setting: str, arch: str, accel: str) -> str:
    """The image that `ENGINE_IMAGE` names for an architecture and accelerator; empty when it is not set.

    The setting is one reference, or several by `arch/accel`, `arch` or `default`: `x86=a/engine:1,arm=b/engine:1` or
    the same as a JSON object. Raises `UnusableEngineImage`.
    """
    images = _images(setting.strip())
    for key in (f"{arch}/{accel}", arch, ANY):
        if key in images:
            return images[key]
    if images:
        raise UnusableEngineImage(
            f"ENGINE_IMAGE names no engine image for {arch}{'' if accel == 'none' else f' with {accel}'}, only for "
            f"{', '.join(sorted(images))}: add one, or one called {ANY}."
        )
    return ""


def copy_of(image: str, repository: str) -> EngineCopy:
    """Where an engine image goes: `<repository>/engines/<name>:<tag>`. Raises `UnusableEngineImage`."""
    try:
        source = references.parse(image)
    except RegistryFault as exc:
        raise UnusableEngineImage(f"ENGINE_IMAGE: {exc.message}") from exc
    # A tag like `sha256-<hex>` would be taken for the referrers of that digest.
    tag = source.tag or f"digest-{source.digest[7:19]}"
    return EngineCopy(source, f"{repository}/engines/{source.name}", tag)


def _images(setting: str) -> dict[str, str]:
    if not setting:
        return {}
    if setting.startswith("{"):
        return _object(setting)
    if "=" not in setting:
        return {ANY: setting}
    pairs = [part.partition("=") for part in setting.split(",") if part.strip()]
    if not all(name.strip() and image.strip() for name, _, image in pairs):
        raise UnusableEngineImage("ENGINE_IMAGE is one image, or arch=image,arch=image, or the same as a JSON object.")
    return {name.strip(): image.strip() for name, _, image in pairs}


def _object(setting: str) -> dict[str, str]:
    try:
        found = json.loads(setting)
    except ValueError as exc:
        raise UnusableEngineImage(f"ENGINE_IMAGE begins like a JSON object but is none ({exc}).") from exc
    if not found or not all(isinstance(image, str) and image for image in found.values()):
        raise UnusableEngineImage('ENGINE_IMAGE as JSON is an object such as {"x86": "…", "arm": "…"}.')
    return {str(name): image for name, image in found.items()}
