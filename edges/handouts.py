"""What people take away with new bundles: the bundle, a file of it, and the commands that use it. Pure.

The files are data: URLs inside the one answer that holds the bundles, because nothing keeps them for a second request.
"""

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from edges.operations import Added
from publishing import commands
from publishing import queries as publishing
from publishing.publish_view import Command

WITH_COMMANDS = 10  # edges whose commands are shown one by one; of more, the file has them
CSV_TYPE = "text/csv"


@dataclass(frozen=True)
class Handout:
    """One edge's bundle. `env_file` is for `docker run --env-file` and the like."""

    name: str
    bundle: str = field(repr=False)
    env_file: str = field(repr=False)
    commands: list[Command] = field(repr=False)


def of_edge(added: Added) -> Handout:
    """For one edge."""
    return of_bundle(added.edge.name, added.bundle, commands_of(added))


def of_bundle(name: str, bundle: str, ready: list[Command]) -> Handout:
    """For a bundle, whosever it is."""
    return Handout(name, bundle, data_url(f"EDGE_BUNDLE={bundle}\n", "text/plain"), ready)


def commands_of(added: Added) -> list[Command]:
    """The commands that start the edge's engine."""
    return commands.for_publish(publishing.view_of(added.edge.publish, added.edge.name), added.bundle)


def of_edges(given: Sequence[Added]) -> list[Handout]:
    """For some edges; the commands only of a few."""
    few = len(given) <= WITH_COMMANDS
    return [of_bundle(added.edge.name, added.bundle, commands_of(added) if few else []) for added in given]


def csv_file(given: Sequence[Added]) -> str:
    """A data: URL of CSV: a line an edge, with its bundle and the command that starts it in a container."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "edge_bundle", "docker_run"])
    for added in given:
        docker = next(one.text for one in commands_of(added) if one.title == "docker run")
        rows.writerow([added.edge.name, added.bundle, docker])
    return data_url(text.getvalue(), CSV_TYPE)


def data_url(text: str, media_type: str) -> str:
    """A file as an address."""
    return f"data:{media_type};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
