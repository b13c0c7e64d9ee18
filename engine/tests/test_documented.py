"""docs/engine.md and `--help` against the code: variables, defaults, endpoints, metrics, commands, limits."""

import re
from collections.abc import Mapping

import orjson
import pytest

from engine.tests.conftest import ROOT
from engine.tests.fakes import models
from engine.tests.test_site import _facts
from opsengine import cli, encode, rows, settings
from opsengine.app import App
from opsengine.metrics import Metrics
from opsengine.views import Views

PAGE = (ROOT / "docs" / "engine.md").read_text()
NOT_IN_SETTINGS = {"RUN_AS", "NO_PROXY"}  # read by the command line, and by urllib
URL = {"PIPELINE_URL": "registry.example.com/ml/pipelines/p:1"}


class Asked(Mapping):
    """An empty environment that remembers what was looked for."""

    def __init__(self):
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name.upper())
        raise KeyError(name)

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


def table(heading):
    """The rows, as lists of cells, of the first table after a heading or header line."""
    _, found, rest = PAGE.partition(heading)
    assert found, f"docs/engine.md has no {heading!r}"
    lines = rest[rest.index("\n|") + 1 :].partition("\n\n")[0].splitlines()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines if line.startswith("|")]
    return [row for row in rows if "`" in row[0]]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def read_variables():
    asked = Asked()
    settings.read(asked, serves=False)
    return asked.names | NOT_IN_SETTINGS


def test_every_variable_is_documented_and_no_other(read_variables):
    assert {name for row in table("## Environment") for name in names(row[0])} == read_variables


def test_every_variable_is_in_the_help_and_no_other(read_variables):
    told = {name for line in re.findall(r"^  ([A-Z_]+(?:, [A-Z_]+)*) ", cli.SERVE, re.M) for name in line.split(", ")}
    secrets = {name for name in read_variables if name.removesuffix("_FILE") in read_variables - {name}}
    assert told == read_variables - secrets
    assert all(name.removesuffix("_FILE") in cli.SERVE.partition("as files")[0] for name in secrets)


def test_documented_defaults_are_the_defaults():
    told = {}
    for row in table("## Environment"):
        told |= dict(zip(names(row[0]), names(row[1]), strict=False))
    assert len(told) > 10
    assert settings.read({**URL, **told}) == settings.read(URL)


def test_every_address_is_documented_and_no_other():
    views = Views(dict, bytes)
    routes = App(None, None, (None, None), views, 1)._routes
    served = {(path, method) for path, (method, *_) in routes.items()} | {("/pipelines/<name>", "POST")}
    assert {(names(row[0])[0], row[1]) for row in table("## Endpoints")} == served


def test_every_metric_is_documented_with_its_labels_and_no_other():
    metrics = Metrics(tuple)
    metrics.add(lambda: _facts())
    served = {
        (found.name + ("_total" if found.type == "counter" else ""))
        for found in metrics._registry.collect()
        if found.name.startswith("opsengine_")
    }
    told = {name: row[1] for row in table("| metric | labels | |") for name in names(row[0])}
    assert set(told) == served
    for metric in (metrics._requests, metrics._rows):
        assert told[f"{metric._name}_total"] == ", ".join(metric._labelnames)
    for metric in (metrics._seconds, metrics._model_seconds):
        assert told[metric._name] == ", ".join(metric._labels)


def test_every_command_is_documented_and_no_other(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    helped = set(re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.M))
    told = re.search(r"`opsengine (serve[^`]+)`, each with `--help`", PAGE)
    assert set(told[1].split(" | ")) == helped


def test_compose_file_sets_only_what_the_engine_reads(read_variables):
    text = (ROOT / "examples" / "compose.yaml").read_text()
    block = text.partition("    environment:\n")[2].partition("\n\n")[0]
    told = re.findall(r"^      ([A-Z_]+):", block, re.M)
    assert "PIPELINE_URL" in told and set(told) <= read_variables
    assert "- persist:/persist" in text and '"8080:8080"' in text


def test_chart_sets_only_what_the_engine_reads(read_variables):
    text = (ROOT / "publishing" / "chart" / "templates" / "deployment.yaml").read_text()
    told = re.findall(r"- name: ([A-Z_]+)$", text, re.M)
    assert "PIPELINE_URL" in told and set(told) <= read_variables


def test_every_field_of_a_record_is_documented_and_no_other(infer):
    (row,) = infer([{"tensor": [1.0, 2.0]}], ("by-two", "m1", models.scale(2.0), ["tensor"]))
    told = [names(cells[0]) for cells in table("| field of a record | |")]
    assert sorted(name for line in told for name in line) == sorted(row)
    logged = orjson.loads(b"[%b]" % encode.log_json(rows.of_result(infer.logged[0]), None))
    assert sorted(name for line in told[:4] for name in line) == sorted(logged[0])
