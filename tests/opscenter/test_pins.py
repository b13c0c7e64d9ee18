"""What is installed is pinned by `scripts/pin` out of files that people write: running it again loses nothing."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"(?P<pin>[^#\s][^#]*?)\s*# via (?P<via>.+)")


def project(path, *extras):
    told = tomllib.loads((ROOT / path).read_text())["project"]
    return [*told["dependencies"], *(line for extra in extras for line in told["optional-dependencies"][extra])]


def listed(path):
    lines = (line.partition(" #")[0].strip() for line in (ROOT / path).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pins(path):
    """Each package's pin and what wants it, by name."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith("#")]
    found = [(Requirement(match["pin"]), match["via"].split(", ")) for match in map(LINE.fullmatch, lines) if match]
    assert len(found) == len(lines), "a line is not as pip-compile writes it"
    return {canonicalize_name(pin.name): (pin, via) for pin, via in found}


FILES = {
    "requirements.txt": (project("pyproject.toml"), "opscenter (pyproject.toml)"),
    "requirements-dev.txt": (
        [*project("pyproject.toml", "dev"), *listed("requirements-dev.in")],
        "opscenter (pyproject.toml)",
        "-r requirements-dev.in",
    ),
    "engine/requirements.txt": (project("engine/pyproject.toml"), "opsengine (engine/pyproject.toml)"),
    "examples/requirements.txt": (listed("examples/requirements.in"), "-r examples/requirements.in"),
}


@pytest.mark.parametrize("path", FILES)
def test_what_is_wanted_is_pinned_and_every_pin_is_wanted(path):
    wanted, *sources = FILES[path]
    pinned = pins(path)
    named = {canonicalize_name(made.name): made for made in map(Requirement, wanted)}
    for name, requirement in named.items():
        pin, via = pinned[name]
        (version,) = [one.version for one in pin.specifier if one.operator == "=="]
        assert requirement.specifier.contains(version), pin
        assert str(pin.marker) == str(requirement.marker), pin
        assert set(via) & set(sources), pin
    for name, (_, via) in pinned.items():
        assert (name in named) == bool(set(via) & set(sources)), f"{name} was pinned by hand"
        assert set(via) - set(sources) <= set(pinned), f"what wants {name} is not pinned"


def test_files_go_together_in_one_environment():
    versions = {}
    for path in FILES:
        for name, (pin, _) in pins(path).items():
            versions.setdefault(name, set()).add(str(pin.specifier))
    assert {name: told for name, told in versions.items() if len(told) > 1} == {}


def test_no_condition_stands_where_pip_compile_drops_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = [line for lines in extras.values() for line in lines if Requirement(line).marker]
    assert told == [], "move it to requirements-dev.in"
