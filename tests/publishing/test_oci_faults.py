"""One clear sentence for each permanent fault: which registry, which step, its own words, and what to do."""

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from publishing.oci import blobs, faults, manifests
from publishing.oci.blobs import Blob
from publishing.oci.client import Client, Registry
from publishing.oci.faults import RegistryFault, Unavailable
from publishing.oci.transport import proxy_of
from tests.fakes.oci import FakeRegistry


@pytest.mark.parametrize(
    ("host", "status", "words", "remedy"),
    [
        ("ghcr.io", 403, "denied: permission_denied", "the token lacks write:packages"),
        ("ghcr.io", 401, "UNAUTHORIZED: no", "classic token with write:packages"),
        ("us-west1-docker.pkg.dev", 403, "DENIED: x", "roles/artifactregistry.writer"),
        ("us-west1-docker.pkg.dev", 404, "NAME_UNKNOWN: x", "gcloud artifacts repositories create"),
        ("1.dkr.ecr.eu-west-1.amazonaws.com", 403, "", "older than 12 hours"),
        (
            "1.dkr.ecr.eu-west-1.amazonaws.com",
            404,
            "NAME_UNKNOWN: x",
            "aws ecr create-repository --repository-name ml/a",
        ),
        ("x.azurecr.io", 403, "DENIED: x", "AcrPush"),
        ("docker.io", 400, "NAME_INVALID: x", "two parts only"),
        ("harbor.example:8443", 404, "NOT_FOUND: project", "in Harbor: its project"),
        ("r.example", 403, "DENIED: x", "give it push rights to ml/a"),
        ("r.example", 413, "", "client_max_body_size"),
        ("r.example", 400, "MANIFEST_INVALID: type", "allow OCI artifacts"),
        ("r.example", 405, "UNSUPPORTED: x", "allow OCI artifacts"),
        ("r.example", 418, "teapot", "the registry's log says more"),
    ],
)
def test_each_refusal_has_its_remedy(host: str, status: int, words: str, remedy: str) -> None:
    reason = faults.reason_of(status, words, reading=False)
    fault = faults.refused(host=host, step="the write", status=status, words=words, repository="ml/a", reason=reason)
    assert remedy in fault.message
    assert fault.message.startswith(f"{host} refused the ")
    assert f"({status} {words}".strip() in fault.message
    assert fault.message.count(". ") == 0, "one sentence"


def test_ghcr_without_write_packages_reads_as_promised() -> None:
    fault = faults.refused(
        host="ghcr.io",
        step="the write",
        status=403,
        words="denied: permission_denied",
        repository="o/r",
        reason="write",
    )
    assert fault.message.startswith(
        "ghcr.io refused the write (403 denied: permission_denied): the token lacks write:packages"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'{"errors":[{"code":"DENIED","message":"requested access\\nis denied"}]}',
            "DENIED: requested access is denied",
        ),
        (b'{"details":"incorrect username or password"}', "incorrect username or password"),
        (b"<html><body>Bad gateway</body></html>", ""),
        (b"plain \x00 words", "plain words"),
        (b'{"errors":[]}', ""),
        (b"[1]", ""),
        (b"", ""),
        (b"x" * 10_000, "x" * 300),
    ],
)
def test_the_registrys_own_words_are_taken_and_bounded(content: bytes, words: str) -> None:
    assert faults.words_of(content) == words


def test_a_password_in_the_registrys_words_is_not_repeated() -> None:
    assert faults.words_of(b"bad token s3cret-pass!", "s3cret-pass") == "bad token ***!"


def test_a_registry_that_is_down_is_told_with_the_setting_to_check(connect: Callable[..., Client]):
    with FakeRegistry() as fake:
        client = connect(fake)
    with pytest.raises(
        Unavailable, match=r"cannot be reached \(connection refused\): is it up, and is .*OCI_REGISTRY.*gave up after 4"
    ):
        client.log_in("ml/a")


def test_a_name_that_nobody_knows_is_told(connect: Callable[..., Client], fake: FakeRegistry):
    fake.host = "registry.invalid"
    with pytest.raises(Unavailable, match=r"registry.invalid cannot be reached \(the name is unknown\)"):
        connect(fake).log_in("ml/a")


def test_https_to_a_plain_http_registry_says_which_switch(connect: Callable[..., Client], fake: FakeRegistry):
    with pytest.raises(RegistryFault, match="speaks plain HTTP, not HTTPS: tick plain HTTP"):
        connect(fake, plain_http=False).log_in("ml/a")


def test_plain_http_to_an_https_registry_says_which_switch(connect: Callable[..., Client], fake: FakeRegistry):
    fake.fail("GET", "/v2/", status=400, body=b"Client sent an HTTP request to an HTTPS server.\n")
    with pytest.raises(RegistryFault, match="speaks HTTPS, not plain HTTP: untick plain HTTP"):
        connect(fake).log_in("ml/a")


def test_plain_http_to_a_server_that_only_hangs_up_hints_at_https(connect: Callable[..., Client], fake: FakeRegistry):
    fake.fail("GET", "/v2/", drop_after=0, times=9)
    with pytest.raises(Unavailable, match="If it speaks HTTPS, untick plain HTTP"):
        connect(fake).log_in("ml/a")


@pytest.mark.parametrize("status", [302, 404])
def test_what_is_no_registry_is_told(connect: Callable[..., Client], fake: FakeRegistry, status: int):
    fake.fail("GET", "/v2/", status=status)
    with pytest.raises(RegistryFault, match=f"does not answer like an OCI registry .GET /v2/ gave {status}."):
        connect(fake).log_in("ml/a")


def test_an_upload_address_without_tls_gets_nothing(make_blob: Callable[..., Blob], tls: "Tls"):
    with FakeRegistry(tls=tls.server) as fake:
        fake.fail("POST", "/uploads/", status=202, headers={"Location": "http://127.0.0.1:9/v2/up"})
        with Client(tls.registry(fake)) as client, pytest.raises(RegistryFault, match="address without TLS"):
            blobs.push(client, "ml/a", make_blob(), lambda more: None)


def test_a_private_ca_is_trusted_when_given(make_blob: Callable[..., Blob], tls: "Tls"):
    with FakeRegistry(auth="basic", tls=tls.server) as fake, Client(tls.registry(fake)) as client:
        client.log_in("ml/a")
        blobs.push(client, "ml/a", make_blob(), lambda more: None)
        assert len(fake.blobs["ml/a"]) == 1


def test_an_unknown_ca_is_told_and_not_tried_again(connect: Callable[..., Client], tls: "Tls"):
    with (
        FakeRegistry(tls=tls.server) as fake,
        pytest.raises(RegistryFault, match=r"certificate of .* is not trusted \(.*\): add the certificate of its CA"),
    ):
        connect(fake, plain_http=False, sleep=lambda seconds: pytest.fail("tried again")).log_in("ml/a")


def test_a_ca_that_is_no_certificate_is_told(connect: Callable[..., Client], fake: FakeRegistry):
    with pytest.raises(RegistryFault, match="not in PEM format"):
        connect(fake, ca_certificate="not a certificate")


def test_a_registry_that_hangs_is_given_up(connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("publishing.oci.client.ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fake = FakeRegistry()
        fake.server.server_close()
        fake.host = f"127.0.0.1:{silent.getsockname()[1]}"
        client = connect(fake)
        call = manifests._read("GET", "ml/a", "v1", frozenset({200}))
        hurried = type(call)(**(vars(call) | {"answer_seconds": 0.1}))
        with pytest.raises(Unavailable, match="did not answer in time at the look-up of ml/a:v1"):
            client.exchange(hurried)


def test_the_environments_proxy_is_used_except_for_this_machine_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".corp.example,10.0.0.1")
    assert proxy_of("https://ghcr.io/v2/") == "http://proxy.example:3128"
    assert proxy_of("http://ghcr.io/v2/") == ""
    assert proxy_of("https://reg.corp.example:5000/v2/") == ""
    assert proxy_of("https://127.0.0.1:5000/v2/") == ""
    assert proxy_of("https://[::1]:5000/v2/") == ""
    assert proxy_of("https://localhost/v2/") == ""


def test_requests_go_through_the_proxy_with_its_login(
    connect: Callable[..., Client], fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@{fake.host}")
    proxied = connect(fake, plain_http=True)
    object.__setattr__(proxied.registry, "host", "registry.example")
    proxied.log_in("ml/a")
    assert fake.seen[0].path == "/v2/"


class Tls:
    """A private CA and a server certificate of it for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        path = folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self.pem.encode()
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)

    def registry(self, fake: FakeRegistry) -> Registry:
        return Registry(fake.host, fake.username, fake.password, ca_certificate=self.pem)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)
