"""HTTP out of the engine: the proxy that the environment names."""

import base64

import pytest

from engine.tests.fakes.http import LoopbackServer, Reply
from opsengine import transport


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
