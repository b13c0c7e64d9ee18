"""What can go wrong at a registry, said in one sentence: which registry, which step, its own words, and the remedy."""

import json
import re
import ssl

import urllib3.exceptions as http

from common.errors import TransientError

MOST_WORDS = 300  # characters of the registry's own message that people are shown


class RegistryFault(Exception):
    """The registry will not do it however often it is asked. `message` is for people."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class Unavailable(TransientError):
    """The registry may do it later. `retry_after` is in seconds, when it said so; `is_final`: it was tried enough."""

    def __init__(self, message: str, *, retry_after: float | None = None, is_final: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.is_final = is_final


class Cancelled(Exception):
    """The caller gave up, or another blob of the same push failed."""


_KINDS = (
    ("ghcr", re.compile(r"(^|\.)ghcr\.io$")),
    ("google", re.compile(r"(-docker\.pkg\.dev|(^|\.)gcr\.io)$")),
    ("ecr", re.compile(r"\.dkr\.ecr\..*amazonaws\.com(\.cn)?$")),
    ("acr", re.compile(r"\.azurecr\.(io|cn|us)$")),
    ("hub", re.compile(r"(^|\.)docker\.io$")),
    ("gitlab", re.compile(r"^registry\.gitlab\.")),
)

SETTINGS = "in the admin console under Registry settings"
_REMEDIES: dict[tuple[str, str], str] = {
    ("login", ""): f"check the username and the password or token {SETTINGS}",
    ("login", "ghcr"): "use your GitHub user name and a classic token with write:packages that has not expired",
    ("login", "ecr"): "an ECR password lasts 12 hours: set a new one (aws ecr get-login-password), username AWS",
    ("login", "google"): "with the username _json_key_base64 the password is the key file in base64; check that the "
    "key was not deleted",
    ("login", "acr"): "check the service principal or token, and that it has not expired",
    ("write", ""): "this account may not write there: give it push rights to {repository}",
    ("write", "ghcr"): "the token lacks write:packages, or the package {repository} does not grant it to this account",
    ("write", "google"): "the service account lacks roles/artifactregistry.writer on this repository",
    ("write", "ecr"): "the password is older than 12 hours or its IAM identity may not push (ecr:PutImage and the "
    "upload actions) to {repository}",
    ("write", "acr"): "the identity lacks the role AcrPush",
    ("write", "hub"): "the access token needs Read & Write, and the account must own the namespace of {repository}",
    ("missing", ""): "there is no repository {repository} and the registry makes none by itself: create it (in Harbor: "
    f"its project), or check the repository {SETTINGS}",
    ("missing", "google"): "create the repository first: gcloud artifacts repositories create … "
    "--repository-format=docker",
    ("missing", "ecr"): "create the repository first: aws ecr create-repository --repository-name {repository}",
    ("name", ""): f"it does not allow the name {{repository}}: change the repository {SETTINGS}",
    ("name", "hub"): "Docker Hub allows names of two parts only, and {repository} has more: use another registry",
    ("type", ""): "it does not take this type of artifact: allow OCI artifacts (ModelPack and Helm) in the registry",
    ("large", ""): "it is too large for the registry or a proxy before it: raise their limit (nginx: "
    "client_max_body_size)",
    ("other", ""): "the registry's log says more",
}


def words_of(content: bytes, secret: str = "") -> str:
    """The registry's own message, from its `{"errors": [{code, message}]}` or plain text, bounded and on one line."""
    text = _error_text(content)
    text = re.sub(r"[\x00-\x20\x7f]+", " ", text).strip()
    if secret:
        text = text.replace(secret, "***")
    return text[:MOST_WORDS]


def refused(*, host: str, step: str, status: int, words: str, repository: str, reason: str) -> RegistryFault:
    """The fault for an answer that repeating does not change."""
    topic = "the login" if reason == "login" else step
    remedy = _remedy(host, reason, repository)
    said = f"{status or ''} {words}".strip()
    return RegistryFault(f"{host} refused {topic} ({said}): {remedy}.", status=status)


def busy(*, host: str, step: str, status: int, words: str, retry_after: float | None) -> Unavailable:
    """The fault for 408, 429 and 5xx."""
    said = f"{status} {words}".strip()
    text = "asked for a pause" if status == 429 else "failed"
    return Unavailable(f"{host} {text} at {step} ({said})", retry_after=retry_after)


def broken(exc: Exception, *, host: str, step: str, plain_http: bool) -> RegistryFault | Unavailable:
    """The fault for what the HTTP library raised: TLS trouble is permanent, connections may come back."""
    if isinstance(exc, http.SSLError):
        return _tls(exc, host)
    if isinstance(exc, http.LocationValueError | http.LocationParseError):
        return RegistryFault(f"{host} is not an address of a registry: give host[:port] {SETTINGS}.")
    if isinstance(exc, http.ProxyError):
        return Unavailable(
            f"{host} cannot be reached through the proxy of the settings, HTTPS_PROXY or HTTP_PROXY ({_cause(exc)})"
        )
    if isinstance(exc, http.ConnectTimeoutError | http.NewConnectionError):
        return Unavailable(
            f"{host} cannot be reached ({_cause(exc)}): is it up, and is the registry right {SETTINGS} (OCI_REGISTRY)?"
        )
    if isinstance(exc, http.ReadTimeoutError):
        return Unavailable(f"{host} did not answer in time at {step}")
    hint = ". If it speaks HTTPS, untick plain HTTP" if plain_http and step.startswith("the login") else ""
    return Unavailable(f"{host} broke the connection at {step} ({_cause(exc)}){hint}")


def _tls(exc: Exception, host: str) -> RegistryFault:
    text = str(exc)
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text or "HTTP_REQUEST" in text:
        return RegistryFault(f"{host} speaks plain HTTP, not HTTPS: tick plain HTTP {SETTINGS} (OCI_PLAIN_HTTP=true).")
    cause = exc.args[0] if exc.args else exc
    why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else _cause(exc)
    return RegistryFault(
        f"The certificate of {host} is not trusted ({why}): add the certificate of its CA {SETTINGS}, "
        "or use the name that the certificate is for."
    )


def _cause(exc: BaseException) -> str:
    """The innermost reason in plain words, without addresses of Python objects."""
    if isinstance(exc, http.NameResolutionError):
        return "the name is unknown"
    inner = exc.__cause__ or next((arg for arg in exc.args[::-1] if isinstance(arg, Exception)), None)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    if isinstance(exc, http.ConnectTimeoutError):
        return "no answer"
    if inner is not None and inner is not exc:
        return _cause(inner)
    return re.sub(r"<[^>]*>:? ?", "", str(exc))[:MOST_WORDS] or type(exc).__name__


def _error_text(content: bytes) -> str:
    try:
        found = json.loads(content)
    except ValueError:
        text = content.decode("utf-8", "replace")
        return "" if "<html" in text.lower() else text
    errors = found.get("errors") if isinstance(found, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        parts = [str(errors[0].get(key) or "") for key in ("code", "message")]
        return ": ".join(part for part in parts if part)
    for key in ("details", "message", "error_description", "error"):
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return str(found[key])
    return ""


def reason_of(status: int, words: str, *, reading: bool) -> str:
    """Which remedy fits a refusal."""
    said = words.upper()
    if status == 401:
        return "login"
    if status == 413:
        return "large"
    if "NAME_INVALID" in said or "INVALID REPOSITORY NAME" in said:
        return "name"
    if status == 404 and not reading:
        return "missing"
    if "NAME_UNKNOWN" in said:
        return "missing"
    if status == 403 or "DENIED" in said:
        return "write"
    if status in {405, 415} or "MANIFEST_INVALID" in said or "UNSUPPORTED" in said:
        return "type"
    return "other"


def _remedy(host: str, reason: str, repository: str) -> str:
    name = host.partition(":")[0]
    kind = next((kind for kind, pattern in _KINDS if pattern.search(name)), "")
    text = _REMEDIES.get((reason, kind)) or _REMEDIES[(reason, "")]
    return text.format(repository=repository or "it")
