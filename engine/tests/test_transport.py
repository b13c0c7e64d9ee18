"""HTTP out of the engine: the proxy that the environment names."""

import base64
import datetime
import ssl

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.tests.fakes.http import LoopbackServer, Reply
from opsengine import transport
from opsengine.errors import RegistryUnavailable
from opsengine.registry import RegistryClient
from opsengine.settings import RegistrySettings


class Proxy(LoopbackServer):
    """Answers for every host, and remembers what was asked."""

    def __init__(self):
        self.asked = []
        super().__init__()

    def reply(self, method, path, headers, body):
        self.asked.append((path, headers.get("Proxy-Authorization")))
        return Reply(200, b"from the proxy")


@pytest.fixture
def proxy():
    server = Proxy()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_other_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def asked(proxy, address, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", address)
    url = "http://registry.example.com/v2/"
    answer = transport.pool(url).request("GET", url)
    assert answer.data == b"from the proxy"
    return proxy.asked


def test_proxy_is_asked_with_its_login(proxy, monkeypatch):
    login = base64.b64encode(b"me:p@ss").decode()
    found = asked(proxy, f"http://me:p%40ss@{proxy.host}", monkeypatch)
    assert found == [("http://registry.example.com/v2/", f"Basic {login}")]


def test_proxy_without_a_scheme_is_asked(proxy, monkeypatch):
    assert asked(proxy, proxy.host, monkeypatch) == [("http://registry.example.com/v2/", None)]


def test_hosts_of_no_proxy_are_asked_themselves(proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://{proxy.host}/v2/"
    assert transport.pool(url).request("GET", url).status == 200
    assert proxy.asked == [("/v2/", None)]


def test_two_calls_at_the_same_time_keep_a_line_each(proxy):
    url = f"http://{proxy.host}/v2/"
    pool = transport.pool(url)
    under_way = [pool.request("GET", url, preload_content=False) for _ in range(2)]
    for answer in under_way:
        answer.drain_conn()
        answer.release_conn()
    lines = pool.connection_from_url(url)
    assert lines.num_connections == 2
    for _ in range(2):
        pool.request("GET", url)
    assert lines.num_connections == 2


@pytest.fixture
def serve_with_certificate(tmp_path):
    """A server whose certificate is valid for a day from `begins` days on; gives its address and the certificate."""
    servers = []

    def serve(begins):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=begins)
        made = x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), start, start + datetime.timedelta(days=1)
        )
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (tmp_path / "ca.pem").write_bytes(pem)
        (tmp_path / "both.pem").write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, *form))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "both.pem")
        server = LoopbackServer()
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        servers.append(server)
        return f"https://localhost:{server.port}", str(tmp_path / "ca.pem")

    yield serve
    for server in servers:
        server.stop()


@pytest.mark.parametrize("begins", [300, -300], ids=["clock behind", "clock ahead"])
def test_clock_that_is_wrong_is_said_and_passes(serve_with_certificate, begins):
    """A machine without a clock of its own starts in the past: no reason to look for another certificate."""
    url, ca_file = serve_with_certificate(begins)
    settings = RegistrySettings(url, None, None, False, ca_file)
    with pytest.raises(RegistryUnavailable, match="not valid at this machine's time"):
        RegistryClient(url.removeprefix("https://"), settings)._send_once("GET", f"{url}/v2/", {})
    with pytest.raises(urllib3.exceptions.SSLError) as caught:
        transport.pool(url).request("GET", url)
    assert transport.clock_fault(caught.value) is None  # nobody has signed it: a clock does not mend that
