"""The engine's settings: read once from the environment, then passed down."""

import math
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opsengine import bundle, evidence, included, locations, privileges
from opsengine.bundle import Bundle
from opsengine.errors import RegistryError, SettingsError

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
SMALLEST_STORAGE = 2**20  # below this a single page of rows may not fit
LARGEST_SIZE = 2**50  # more is a slip of the pen, and some of it no file system could count
SMALLEST_FIELD = 64  # bytes; a limit below would drop single numbers
LARGEST_PAGE = 10_000  # rows; the center refuses larger pages (contract/README.md)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Where and how to pull. `address` is OCI_REGISTRY as given, None when unset."""

    address: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    plain_http: bool = False
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the environment says. Sizes are bytes, times seconds."""

    pipeline_url: str
    registry: RegistrySettings
    bundle: Bundle | None = None
    cpus: int = 1
    debug: bool = False
    storage_bytes: int = 2**30
    page_rows: int = 1000
    max_body: int = 64 * 2**20
    host: str = "0.0.0.0"
    port: int = 8080
    persist_dir: Path = Path("/persist")
    checkin_seconds: float | None = None
    pipeline_dir: Path | None = None
    pipeline_digest: str | None = None  # of what is in pipeline_dir
    max_queue: int = 64
    log_field_limit: int = 64 * 2**10
    log_format: str = "text"
    signing_key: evidence.PublicKey | None = None

    @property
    def partition(self) -> str:
        """What log rows are told apart by before the center says so: the edge's name, else the machine's."""
        return self.bundle.edge_name if self.bundle else socket.gethostname()


def read(environ: Mapping[str, str], *, serves: bool = True) -> Settings:
    """Read the settings; raises SettingsError with one sentence at the first wrong value.

    `serves`: for commands that need a pipeline's location.
    """
    env = _Environment(environ)
    text = env.secret("EDGE_BUNDLE")
    edge = bundle.parse(text) if text else None
    given = env.text("PIPELINE_URL")
    folder = None if given else env.text("PIPELINE_DIR")
    held = included.digest_of(Path(folder)) if folder else None
    # With the digest in its name another image's pipeline is another location, and fetched anew.
    pipeline_url = f"file://{folder}@{held}" if held else given or (edge and edge.pipeline_url)
    if not pipeline_url and serves:
        raise SettingsError(
            "PIPELINE_URL is not set: give the location of a published pipeline, or an EDGE_BUNDLE that names one."
        )
    storage, page = env.text("LOCAL_INFERENCE_STORAGE"), env.text("PLATEAU_PAGE_SIZE")
    if (storage is None) != (page is None):
        raise SettingsError("LOCAL_INFERENCE_STORAGE and PLATEAU_PAGE_SIZE go together: set both or none.")
    key = _signing_key(env)
    if key and folder and serves:
        raise SettingsError(
            "The pipeline in PIPELINE_DIR has no signature of its own: check the image's with cosign where it is "
            "pulled and set REQUIRE_SIGNATURE=false, or give PIPELINE_URL."
        )
    registry = _registry(env, edge)
    if given:
        _check_location(given, registry)
    _check_transport(env)
    defaults = Settings(pipeline_url or "", registry)
    return Settings(
        pipeline_url=defaults.pipeline_url,
        registry=defaults.registry,
        bundle=edge,
        cpus=math.ceil(env.number("CONFIG_CPUS", 1.0, low=0.001, high=1024)),
        debug=env.flag("DEBUG"),
        storage_bytes=env.size("LOCAL_INFERENCE_STORAGE", defaults.storage_bytes, low=SMALLEST_STORAGE),
        page_rows=env.whole("PLATEAU_PAGE_SIZE", defaults.page_rows, low=1, high=LARGEST_PAGE),
        max_body=env.size("MAX_BODY", defaults.max_body, low=1),
        host=env.text("ENGINE_HOST") or defaults.host,
        port=env.whole("ENGINE_PORT", defaults.port, low=1, high=65535),
        persist_dir=Path(env.text("PERSIST_DIR") or defaults.persist_dir),
        checkin_seconds=env.number("CHECKIN_SECONDS", None, low=0.05, high=86400)
        if env.text("CHECKIN_SECONDS")
        else None,
        pipeline_dir=Path(folder) if folder else None,
        pipeline_digest=held,
        max_queue=env.whole("MAX_QUEUE", defaults.max_queue, low=0, high=512),
        log_field_limit=env.size("LOG_FIELD_LIMIT", defaults.log_field_limit, low=SMALLEST_FIELD),
        log_format=env.choice("LOG_FORMAT", ("text", "json")),
        signing_key=key,
    )


def _signing_key(env: "_Environment") -> evidence.PublicKey | None:
    text = env.secret("COSIGN_PUBLIC_KEY")
    if text is None and env.flag("REQUIRE_SIGNATURE"):
        raise SettingsError(
            "REQUIRE_SIGNATURE is true, but there is no key: set COSIGN_PUBLIC_KEY or COSIGN_PUBLIC_KEY_FILE."
        )
    if text is not None and env.text("REQUIRE_SIGNATURE") and not env.flag("REQUIRE_SIGNATURE"):
        return None
    return evidence.read_key(text) if text else None


def _registry(env: "_Environment", edge: Bundle | None) -> RegistrySettings:
    username, password = env.text("OCI_USERNAME"), env.secret("OCI_PASSWORD")
    if (username is None) != (password is None):
        raise SettingsError(
            "OCI_USERNAME and OCI_PASSWORD go together: set both, or none for a registry without login."
        )
    address = env.text("OCI_REGISTRY")
    if address and not locations.registry_host(address):
        raise SettingsError(f"OCI_REGISTRY is {address!r}: give a registry's address, like registry.example.com:5000.")
    return RegistrySettings(
        address=address or (edge.oci_registry if edge else None),
        username=username,
        password=password,
        plain_http=env.flag("OCI_PLAIN_HTTP"),
        ca_file=env.certificates("OCI_CA_FILE"),
    )


def _check_location(given: str, registry: RegistrySettings) -> None:
    host = locations.registry_host(registry.address) if registry.address else None
    try:
        locations.parse_reference(given, host)
    except RegistryError as error:
        raise SettingsError(f"PIPELINE_URL is wrong: {error}") from None


def _check_transport(env: "_Environment") -> None:
    """What Python and OpenSSL read by themselves, and pass over or fail on much later where it is wrong."""
    env.certificates("SSL_CERT_FILE")
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        for written in (name, name.lower()):
            proxy = env.text(written)
            if proxy and not locations.proxy(proxy):  # not repeated: a password may be in it
                raise SettingsError(f"{written} is not a proxy's address: give one like http://proxy.example.com:3128.")


class _Environment:
    """Typed readers of an environment; an empty value counts as unset, as compose files and charts leave it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def secret(self, name: str) -> str | None:
        """The value of `name`, or the content of the file that `<name>_FILE` names."""
        path = self.text(f"{name}_FILE")
        if path is None:
            return self.text(name)
        if self.text(name) is not None:
            raise SettingsError(f"{name} and {name}_FILE are both set: keep one.")
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except PermissionError as error:
            raise SettingsError(f"{name}_FILE: {privileges.refusal(error)}.") from None
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{name}_FILE is {path!r}, but that file cannot be read.") from None

    def certificates(self, name: str) -> str | None:
        """The path of a file with certificates in PEM."""
        path = self.text(name)
        if path is None:
            return None
        try:
            Path(path).open("rb").close()
            ssl.create_default_context(cafile=path)
        except PermissionError as error:
            raise SettingsError(f"{name}: {privileges.refusal(error)}.") from None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise SettingsError(f"{name} is {path!r}, but there is no such file.") from None
        except (ssl.SSLError, OSError):
            raise SettingsError(f"{name} is {path!r}, but no certificate in PEM can be read there.") from None
        return path

    def flag(self, name: str) -> bool:
        value = (self.text(name) or "false").lower()
        if value not in ("true", "false", "1", "0", "yes", "no"):
            raise SettingsError(f"{name} is {value!r}: give true or false.")
        return value in ("true", "1", "yes")

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """One of a few words; the first is the default."""
        value = (self.text(name) or known[0]).lower()
        if value not in known:
            raise SettingsError(f"{name} is {value!r}: give {' or '.join(known)}.")
        return value

    def number(self, name: str, default: float | None, *, low: float, high: float) -> float:
        value = self.text(name)
        if value is None and default is not None:
            return default
        try:
            number = float(value or "")
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise SettingsError(f"{name} is {value!r}: give a number from {low:g} to {high:g}.")
        return number

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,18}", value) or not low <= int(value) <= high:
            raise SettingsError(f"{name} is {value!r}: give a whole number from {low} to {high}.")
        return int(value)

    def size(self, name: str, default: int, *, low: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(Ki|Mi|Gi|Ti)", value)
        if not match:
            raise SettingsError(f"{name} is {value!r}: give a number with a unit Ki, Mi, Gi or Ti, for example 512Mi.")
        size = int(float(match[1]) * UNITS[match[2]])
        if size < low:
            least = f"{low // 2**10} Ki" if low >= UNITS["Ki"] else f"{low} B"
            raise SettingsError(f"{name} is {value!r}: it must be at least {least}.")
        if size > LARGEST_SIZE:
            raise SettingsError(f"{name} is {value!r}: it must be at most {LARGEST_SIZE // 2**40} Ti.")
        return size
