"""The targets by name."""

from bench.fuzz import bodies, lines, site
from bench.fuzz.site import Harm, Site

MODULES = {"bodies": bodies, "lines": lines}
TARGETS = {"bodies": bodies.Bodies, "lines": lines.Lines}
PLANTED = "-planted"  # behind a name: with a fault, to see that it is found


def make(name):
    """A target, in a process that may take only so much memory from now on."""
    target = TARGETS[name.removesuffix(PLANTED)](PlantedSite() if name.endswith(PLANTED) else None)
    site.limit_addresses()
    return target


def seeds(name):
    """Inputs that are good."""
    return list(MODULES[name.removesuffix(PLANTED)].seeds())


def mutated(name):
    """The target's own mutations, if it has any."""
    return getattr(MODULES[name.removesuffix(PLANTED)], "mutated", None)


def words(name):
    """What mutations put in, as libFuzzer's dictionary."""
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in MODULES[name.removesuffix(PLANTED)].WORDS)
    return "".join(f'"{word}"\n' for word in escaped)


class PlantedSite(Site):
    """Fails on what no seed asks for: a content type that is not understood."""

    def answer(self, request):
        reply = super().answer(request)
        if reply.status == 415:
            raise Harm("the planted fault")
        return reply
