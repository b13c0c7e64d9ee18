"""HTTP out of the engine: connection pools that honour proxies and a private CA, and the pauses between tries."""

import random
import ssl
import time
import urllib.request
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import urllib3

from opsengine import locations

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
LINES = 4  # kept open to a host: check-ins and log pages are under way at the same time

NOT_YET_VALID, EXPIRED = 9, 10  # OpenSSL's words for a certificate that only its time keeps from being trusted

# Worth another try: timeouts, too many requests, and faults that servers and gateways get over.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


def pool(url: str, ca_file: str | None = None) -> urllib3.PoolManager:
    """A pool for the host of `url`: through the proxy that the environment names, checked against `ca_file`."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    proxy = locations.proxy(urllib.request.getproxies().get(parts.scheme, ""))
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        address, login = proxy
        headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
        return urllib3.ProxyManager(
            address, proxy_headers=headers, ssl_context=context, timeout=timeout, retries=False, maxsize=LINES
        )
    return urllib3.PoolManager(ssl_context=context, timeout=timeout, retries=False, maxsize=LINES)


def clock_fault(error: urllib3.exceptions.SSLError) -> str | None:
    """What to say of a certificate that is right but for this machine's time, None of any other fault.

    Machines without a clock of their own start in the past: this passes when theirs is set.
    """
    cause = error.args[0] if error.args else None
    if getattr(cause, "verify_code", None) not in (NOT_YET_VALID, EXPIRED):
        return None
    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return f"its certificate is not valid at this machine's time, {now} UTC: set the clock, or renew the certificate"


def pause(attempt: int, *, first: float = 1.0, longest: float = 60.0) -> float:
    """Seconds to wait after failed try number `attempt` (from 0): doubling, with jitter so that a fleet spreads out."""
    return min(longest, first * 2.0 ** min(attempt, 20)) * random.uniform(0.5, 1.0)


def retry_after(headers: urllib3.HTTPHeaderDict) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date seen against the answer's own `Date`."""
    value = headers.get("Retry-After")
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until, now = parsedate_to_datetime(value), parsedate_to_datetime(headers["Date"])
    except (ValueError, KeyError, TypeError):
        return None
    return max(0.0, (until - now).total_seconds())
