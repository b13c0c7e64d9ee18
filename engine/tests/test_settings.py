"""The environment: what is read, and what stops the start with one sentence."""

import base64
import socket

import pytest

from engine.tests.fakes.center import CONTRACT, golden
from opsengine import bundle, privileges, server, settings
from opsengine.errors import SettingsError

URL = {"PIPELINE_URL": "registry.example.com/ml/pipelines/p:1"}


def packed(text):
    return base64.b64encode(text.encode()).decode()


def test_only_a_pipeline_is_needed():
    read = settings.read(URL)
    assert (read.port, read.cpus, read.page_rows, read.storage_bytes) == (8080, 1, 1000, 2**30)
    assert (read.bundle, str(read.persist_dir), read.checkin_seconds) == (None, "/persist", None)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"PIPELINE_URL": ""}, "PIPELINE_URL is not set"),
        ({"CONFIG_CPUS": "many"}, "CONFIG_CPUS is 'many'"),
        ({"CONFIG_CPUS": "0"}, "CONFIG_CPUS is '0'"),
        ({"CONFIG_CPUS": "nan"}, "CONFIG_CPUS is 'nan'"),
        ({"DEBUG": "maybe"}, "DEBUG is 'maybe'"),
        ({"ENGINE_PORT": "99999"}, "ENGINE_PORT is '99999'"),
        ({"ENGINE_PORT": "80.5"}, "ENGINE_PORT is '80.5'"),
        ({"LOCAL_INFERENCE_STORAGE": "1Gi"}, "go together"),
        ({"PLATEAU_PAGE_SIZE": "100"}, "go together"),
        ({"LOCAL_INFERENCE_STORAGE": "1GB", "PLATEAU_PAGE_SIZE": "100"}, "Ki, Mi, Gi or Ti"),
        ({"LOCAL_INFERENCE_STORAGE": "10Ki", "PLATEAU_PAGE_SIZE": "100"}, "at least 1024 Ki"),
        ({"LOCAL_INFERENCE_STORAGE": "1Gi", "PLATEAU_PAGE_SIZE": "10001"}, "from 1 to 10000"),
        ({"OCI_USERNAME": "me"}, "OCI_USERNAME and OCI_PASSWORD go together"),
        ({"OCI_PASSWORD_FILE": "/no/such"}, "cannot be read"),
        ({"OCI_CA_FILE": "/no/such"}, "no such file"),
        ({"EDGE_BUNDLE": "%%%"}, "EDGE_BUNDLE is not base64"),
        ({"EDGE_BUNDLE": packed("export EDGE_NAME=x")}, "EDGE_BUNDLE lacks JOIN_TOKEN, OPSCENTER_HOST"),
        ({"CHECKIN_SECONDS": "-1"}, "CHECKIN_SECONDS"),
        ({"MAX_BODY": "64"}, "MAX_BODY"),
        ({"MAX_BODY": "0Ki"}, "at least 1 B"),
        ({"LOG_FIELD_LIMIT": "0.01Ki"}, "at least 64 B"),
        ({"MAX_QUEUE": "\u0663"}, "MAX_QUEUE"),
        ({"LOCAL_INFERENCE_STORAGE": "999999999Ti", "PLATEAU_PAGE_SIZE": "1"}, "at most 1024 Ti"),
        ({"PLATEAU_PAGE_SIZE": "0", "LOCAL_INFERENCE_STORAGE": "1Gi"}, "from 1 to 10000"),
        ({"MAX_QUEUE": "-1"}, "MAX_QUEUE is '-1'"),
        ({"LOG_FIELD_LIMIT": "1"}, "LOG_FIELD_LIMIT is '1'"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is 'xml': give text or json"),
        ({"OCI_PLAIN_HTTP": "http"}, "OCI_PLAIN_HTTP is 'http'"),
        ({"PIPELINE_URL": "not a location"}, "PIPELINE_URL is wrong: 'not a location'"),
        ({"PIPELINE_URL": "http://two words/p:1"}, "PIPELINE_URL is wrong"),
        ({"PIPELINE_URL": "r.io/p:tag with blanks"}, "PIPELINE_URL is wrong"),
        ({"OCI_REGISTRY": "ftp://r.io"}, "OCI_REGISTRY is 'ftp://r.io'"),
        ({"OCI_REGISTRY": "r.io:99999"}, "OCI_REGISTRY is 'r.io:99999'"),
        ({"OCI_REGISTRY": "[::"}, "OCI_REGISTRY is '[::'"),
        ({"OCI_CA_FILE": __file__}, "no certificate in PEM"),
        ({"SSL_CERT_FILE": "/no/such"}, "SSL_CERT_FILE is '/no/such'"),
        ({"https_proxy": "socks5://me:hush@proxy"}, "https_proxy is not a proxy's address"),
        ({"HTTP_PROXY": "proxy:99999"}, "HTTP_PROXY is not a proxy's address"),
    ],
)
def test_wrong_value_is_named(env, said):
    with pytest.raises(SettingsError) as caught:
        settings.read({**URL, **env})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and "hush" not in str(caught.value)


@pytest.mark.parametrize("address", ["ghcr.io", "https://ghcr.io/", "http://[::1]:5000", "localhost:5000/org/team"])
def test_registrys_address_is_taken_with_and_without_scheme_and_path(address):
    read = settings.read({**URL, "OCI_REGISTRY": address})
    assert read.registry.address == address


def test_location_may_leave_the_registry_to_its_own_setting():
    assert settings.read({"PIPELINE_URL": "pipelines/p:1", "OCI_REGISTRY": "r.io"}).pipeline_url == "pipelines/p:1"


def test_sizes_cpus_and_flags():
    env = {"LOCAL_INFERENCE_STORAGE": "1.5Mi", "PLATEAU_PAGE_SIZE": "50", "CONFIG_CPUS": "1.25", "DEBUG": "true"}
    read = settings.read({**URL, **env})
    assert (read.storage_bytes, read.page_rows, read.cpus, read.debug) == (3 * 2**19, 50, 2, True)


@pytest.mark.parametrize(
    ("size", "bytes_"), [("2048Ki", 2**21), ("512Mi", 2**29), ("3Gi", 3 * 2**30), ("1Ti", 2**40), ("0.5 Gi", 2**29)]
)
def test_units_are_those_of_kubernetes(size, bytes_):
    read = settings.read({**URL, "LOCAL_INFERENCE_STORAGE": size, "PLATEAU_PAGE_SIZE": "1"})
    assert read.storage_bytes == bytes_


@pytest.mark.parametrize(("cpus", "used"), [("1", 1), ("1.0", 1), ("4", 4), ("0.25", 1), ("2.5", 3)])
def test_fractions_of_cpus_are_rounded_up(cpus, used):
    assert settings.read({**URL, "CONFIG_CPUS": cpus}).cpus == used


def test_secret_from_a_file_and_not_in_its_text(tmp_path):
    path = tmp_path / "password"
    path.write_text("hush-hush\n")
    read = settings.read({**URL, "OCI_USERNAME": "me", "OCI_PASSWORD_FILE": str(path)})
    assert read.registry.password == "hush-hush"
    assert "hush-hush" not in repr(read)


def test_golden_bundle_is_read():
    wanted = golden("bundle.json")
    read = settings.read({"EDGE_BUNDLE": (CONTRACT / "bundle.txt").read_text()})
    assert read.bundle.edge_name == wanted["EDGE_NAME"]
    assert read.bundle.join_token == wanted["JOIN_TOKEN"]
    assert read.bundle.center_url == f"https://{wanted['OPSCENTER_HOST']}"
    assert read.pipeline_url == wanted["PIPELINE_URL"]
    assert wanted["JOIN_TOKEN"] not in repr(read)


def test_environment_wins_over_the_bundle():
    read = settings.read({**URL, "EDGE_BUNDLE": (CONTRACT / "bundle.txt").read_text()})
    assert read.pipeline_url == URL["PIPELINE_URL"]


def test_bundle_in_any_order_unpadded_and_never_evaluated():
    lines = [
        "WORKSPACE_ID=7",
        "OPSCENTER_HOST=host",
        "export JOIN_TOKEN=a=b$(touch /tmp/x)",
        'EDGE_NAME="e"',
        "NEW=1",
        "",
    ]
    read = bundle.parse(packed("\n".join(lines)).rstrip("="))
    assert (read.edge_name, read.join_token) == ("e", "a=b$(touch /tmp/x)")


def test_bundle_of_a_newer_center_is_refused():
    text = "BUNDLE_VERSION=2\nEDGE_NAME=e\nJOIN_TOKEN=t\nOPSCENTER_HOST=h"
    with pytest.raises(SettingsError, match="update the engine"):
        bundle.parse(packed(text))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("center.example.com/edge", "https://center.example.com/edge"),
        ("center.example.com", "https://center.example.com/edge"),
        ("center.example.com:8443/edge/", "https://center.example.com:8443/edge"),
        ("http://127.0.0.1:8000/edge", "http://127.0.0.1:8000/edge"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/edge"),
        ("center.example.com/sites/edge", "https://center.example.com/sites/edge"),
    ],
)
def test_center_address(host, url):
    assert bundle.center_url(host) == url


@pytest.mark.parametrize(
    "host", ["", "ftp://center", "https://user:pw@center/edge", "center:99999", "two words/edge", "[::/edge", "http://"]
)
def test_wrong_center_address_is_refused(host):
    with pytest.raises(SettingsError):
        bundle.center_url(host)


@pytest.mark.parametrize("wrong", ["me", "0", "-1", "1.5", "99999999999"])
def test_wrong_user_to_become_is_named_whoever_starts_it(tmp_path, wrong):
    with pytest.raises(SettingsError, match=f"RUN_AS is '{wrong}'"):
        privileges.drop(wrong, tmp_path)


def test_address_that_is_not_this_machines_is_named(monkeypatch):
    with pytest.raises(SettingsError, match=r"ENGINE_HOST is '192\.0\.2\.1'"):  # of nobody (RFC 5737)
        server.bound("192.0.2.1", 0)

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SettingsError, match="ENGINE_HOST is 'nowhere'"):
        server.bound("nowhere", 0)
