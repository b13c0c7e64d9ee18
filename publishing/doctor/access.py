"""Whether the registry can be reached and lets us in: address, TLS, proxy, clock, the password's age, the login."""

import re
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from django.utils.translation import gettext as _

from publishing.doctor.place import Place
from publishing.doctor.report import FAIL, OK, WARN
from publishing.oci.client import Answer
from publishing.oci.transport import proxy_of

CLOCK_SECONDS = 60  # beyond it tokens begin too early or end too soon
ECR_HOURS = 12
ANSWERS = frozenset({200, 401, 403, 404})  # of a registry that is there
_ECR = re.compile(r"\.dkr\.ecr\..*amazonaws\.com(\.cn)?$")


def password_age(host: str, saved_at: datetime, now: datetime) -> str:
    """That an ECR token is past its 12 hours; empty for younger ones and other registries."""
    age = now - saved_at
    if not _ECR.search(host) or age < timedelta(hours=ECR_HOURS):
        return ""
    told = {"age": age.total_seconds() / 3600, "hours": ECR_HOURS}
    return _("This token was saved %(age).0f h ago; ECR tokens last %(hours)s h.") % told


def connection(at: Place) -> None:
    """Also TLS, the proxy and the clocks. Raises `RegistryFault`, `Unavailable` when nothing else can be tried."""
    registry = at.client.registry
    url = f"{registry.base_url}/v2/"
    began = at.clock()
    answer = at.client.retry(at.client.ping)
    if answer.status not in ANSWERS:
        raise at.client.no_registry(answer)
    proxy = registry.proxy or proxy_of(url)
    way = f" through the proxy {_without_login(proxy)}" if proxy else ""
    if registry.plain_http and not _is_local(registry.host):
        said = f"{registry.host} answers{way}, without TLS: the password travels in the open."
        at.report.add("connection", WARN, said, "Give the registry a certificate, or keep it in a private network.")
    else:
        tls = "without TLS, on this machine" if registry.plain_http else "with a trusted certificate"
        at.report.add("connection", OK, f"{registry.host} answers{way}, {tls}.")
    _clocks(at, answer, began)


def _clocks(at: Place, answer: Answer, began: float) -> None:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError):
        return
    skew = abs(theirs - (began + at.clock()) / 2)
    if skew > CLOCK_SECONDS:
        said = f"The clocks here and at the registry differ by {skew:.0f} s, so tokens may count as expired."
        at.report.add("clock", WARN, said, "Switch on NTP on both machines.")
    else:
        at.report.add("clock", OK, "The clocks agree.")


def age(at: Place, saved_at: datetime) -> None:
    """Whether the stored password is past the life that this kind of registry gives it."""
    now = datetime.fromtimestamp(at.clock(), saved_at.tzinfo)
    if warning := password_age(at.client.registry.host, saved_at, now):
        at.report.add("password", FAIL, warning, "Set a new one: aws ecr get-login-password.")


def login(at: Place) -> None:
    """With the right to push. Raises `RegistryFault`, `Unavailable`."""
    at.client.log_in(at.repository)
    who = at.client.registry.username
    name = f"The login as {who}" if who else "A push without login"
    at.report.add("login", OK, f"{name} is accepted, with the right to push to {at.repository}.")


def _without_login(url: str) -> str:
    return re.sub(r"//[^@/]*@", "//", url)


def _is_local(host: str) -> bool:
    return host.startswith(("localhost", "127.", "[::1]"))
