"""Which engine image a publish takes along, and where it is copied to. Pure."""

import json
import re
from dataclasses import dataclass

from django.utils.translation import gettext

from publishing.errors import UnusableEngineImage
from publishing.oci import references
from publishing.oci.faults import RegistryFault
from publishing.oci.references import Reference

ANY = "default"  # the key of the image for every other architecture
KEY = re.compile(r"[a-z0-9_]{1,32}(/[a-z0-9_]{1,32})?")
HOST = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
MOST = 16 * 1024  # characters of all images; a reference has some 100


@dataclass(frozen=True)
class EngineCopy:
    """An engine image, and where it is copied to: repository and tag in the registry of publishes."""

    source: Reference
    repository: str
    tag: str


def chosen(setting: str, arch: str, accel: str) -> str:
    """The image that the setting names for an architecture and accelerator; empty when it is not set.

    The setting (`ENGINE_IMAGE`, or what is stored instead) is one reference, or several by `arch/accel`, `arch` or
    `default`: `x86=a/engine:1,arm=b/engine:1`, also in lines, or the same as a JSON object. Raises
    `UnusableEngineImage`.
    """
    images = named(setting)
    for key in (f"{arch}/{accel}", arch, ANY):
        if key in images:
            return images[key]
    if images:
        raise UnusableEngineImage(_unnamed(arch, accel, ", ".join(sorted(images))))
    return ""


def _unnamed(arch: str, accel: str, named: str) -> str:
    told = {"arch": arch, "accel": accel, "images": named, "any": ANY}
    if accel == "none":
        return (
            gettext(
                "ENGINE_IMAGE names no engine image for %(arch)s, only for %(images)s: add one, or one called %(any)s."
            )
            % told
        )
    return (
        gettext(
            "ENGINE_IMAGE names no engine image for %(arch)s with %(accel)s, only for %(images)s: add one, or one "
            "called %(any)s."
        )
        % told
    )


def copy_of(image: str, repository: str) -> EngineCopy:
    """Where an engine image goes: `<repository>/engines/<name>:<tag>`. Raises `UnusableEngineImage`."""
    try:
        source = references.parse(image)
    except RegistryFault as exc:
        raise UnusableEngineImage(f"ENGINE_IMAGE: {exc.message}") from exc
    # A tag like `sha256-<hex>` would be taken for the referrers of that digest.
    tag = source.tag or f"digest-{source.digest[7:19]}"
    return EngineCopy(source, f"{repository}/engines/{source.name}", tag)


def checked(setting: str) -> str:
    """The setting without white space around it, when each of its parts can be an image. Raises `UnusableEngineImage`.

    Whether the image is there only its registry knows.
    """
    if len(setting) > MOST:
        raise UnusableEngineImage(gettext("The engine images have more than %(most)s characters.") % {"most": MOST})
    for name, image in named(setting).items():
        if not KEY.fullmatch(name):
            raise UnusableEngineImage(
                gettext(
                    "%(name)r is no architecture: name an image by x86, arm or the like, by arch/accel, or %(any)s."
                )
                % {"name": name[:100], "any": ANY}
            )
        host = copy_of(image, "ml").source.host
        if not HOST.fullmatch(host):
            raise UnusableEngineImage(
                gettext("%(host)r is no registry: give host[:port]/repository:tag, without a scheme.")
                % {"host": host[:200]}
            )
    return setting.strip()


def named(setting: str) -> dict[str, str]:
    """All images of a setting by `arch/accel`, `arch` or `default`. Raises `UnusableEngineImage`."""
    setting = setting.strip()
    if not setting:
        return {}
    if setting.startswith("{"):
        return _object(setting)
    if "=" not in setting:
        return {ANY: setting}
    pairs = [part.partition("=") for part in re.split(r"[,\n]", setting) if part.strip()]
    if not all(name.strip() and image.strip() for name, _, image in pairs):
        raise UnusableEngineImage(
            gettext("ENGINE_IMAGE is one image, or arch=image,arch=image, or the same as a JSON object.")
        )
    return {name.strip(): image.strip() for name, _, image in pairs}


def _object(setting: str) -> dict[str, str]:
    try:
        found = json.loads(setting)
    except ValueError as exc:
        raise UnusableEngineImage(
            gettext("ENGINE_IMAGE begins like a JSON object but is none (%(reason)s).") % {"reason": exc}
        ) from exc
    if not found or not all(isinstance(image, str) and image for image in found.values()):
        raise UnusableEngineImage(gettext('ENGINE_IMAGE as JSON is an object such as {"x86": "…", "arm": "…"}.'))
    return {str(name): image for name, image in found.items()}
