"""HTTP to a registry: pools of connections, TLS with a private CA, and the proxies that the environment names."""

import ipaddress
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.util import make_headers

from publishing.oci.faults import RegistryFault

CONNECT_SECONDS = 15.0  # also what sending one piece may take: below 17 KiB/s a connection counts as hung
ANSWER_SECONDS = 60.0
PIECE = 256 * 1024  # bytes read and sent at once
CONNECTIONS = 8  # kept per host; more than the blobs that are sent at once


class Readable(Protocol):
    """What a request body must be able to do."""

    def read(self, size: int = -1, /) -> bytes: ...


class Transport:
    """Sends one request and never follows, retries or authenticates: that is `client`'s to decide."""

    def __init__(self, ca_certificate: str = "", proxy: str = "") -> None:
        """`ca_certificate` is PEM text that is trusted beside the system's CAs; `proxy` goes before the environment's.

        Raises `RegistryFault`.
        """
        self._proxy = proxy
        self._context = ssl.create_default_context()
        if ca_certificate:
            try:
                self._context.load_verify_locations(cadata=ca_certificate)
            except (ssl.SSLError, ValueError) as exc:
                raise RegistryFault("The CA certificate in the registry settings is not in PEM format.") from exc
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Readable | bytes | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        """Sends, and answers the response with its body unread. Raises `urllib3.exceptions.HTTPError`."""
        return self._pool(url).request(
            method,
            url,
            headers=dict(headers),
            body=body,  # type: ignore[arg-type]  # any object with read() will do
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=answer_seconds),
            redirect=False,
            retries=False,
            preload_content=False,
        )

    def close(self) -> None:
        """Closes every kept connection."""
        for pool in self._pools.values():
            pool.clear()

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxy or proxy_of(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._make_pool(proxy)
            return self._pools[proxy]

    def _make_pool(self, proxy: str) -> urllib3.PoolManager:
        if not proxy:
            return urllib3.PoolManager(maxsize=CONNECTIONS, blocksize=PIECE, ssl_context=self._context)
        parts = urlsplit(proxy)
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        return urllib3.ProxyManager(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            proxy_headers=make_headers(proxy_basic_auth=login) if login else None,
            maxsize=CONNECTIONS,
            blocksize=PIECE,
            ssl_context=self._context,
        )


def proxy_of(url: str) -> str:
    """The proxy for a URL by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; empty for none.

    This machine is never reached through a proxy, as in Go's clients: the built-in registry lives here.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies_environment()
    if _is_this_machine(host) or urllib.request.proxy_bypass(parts.netloc, proxies):
        return ""
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
