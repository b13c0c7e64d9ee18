"""All settings of the center, from the environment.

`docs/settings.md` lists the names; `opscenter/checks.py` refuses wrong combinations.
"""

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from cryptography.fernet import Fernet
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from django.templatetags.static import static
from django.utils.translation import get_language_info

from common import env, secrets

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(env.text("OPSCENTER_DATA", str(BASE_DIR / "var"))).resolve()
PORT = env.integer("PORT", 8000)
BIND = env.text("OPSCENTER_BIND", "127.0.0.1")
WEB_THREADS = env.integer("OPSCENTER_WEB_THREADS", 8)
WORKER_CONCURRENCY = env.integer("OPSCENTER_WORKER_CONCURRENCY", 2)
CENTER_VERSION = "0.1.0"  # as in pyproject.toml, which an installed center does not have beside it
PUBLIC_URL = env.text("OPSCENTER_PUBLIC_URL", f"http://127.0.0.1:{PORT}").rstrip("/")
DEBUG = env.flag("OPSCENTER_DEBUG")

_public = urlsplit(PUBLIC_URL)
_https = _public.scheme == "https"

try:
    # Without a shared database there is one machine, so it may keep secrets that it made itself.
    SECRET_KEY = env.text("OPSCENTER_SECRET_KEY") or secrets.kept(DATA / "secrets/django.key", get_random_secret_key)
    ENCRYPTION_KEYS = env.words("OPSCENTER_ENCRYPTION_KEYS") or [
        secrets.kept(DATA / "secrets/encryption.key", lambda: Fernet.generate_key().decode())
    ]
    REGISTRY_PASSWORD = env.text("OPSCENTER_REGISTRY_PASSWORD") or secrets.kept(
        DATA / "secrets/registry.password", lambda: Fernet.generate_key().decode().rstrip("=")
    )
except OSError as exc:
    raise ImproperlyConfigured(
        f"The data folder {DATA} cannot be written ({exc.strerror}): set OPSCENTER_DATA."
    ) from exc

ALLOWED_HOSTS = [
    _public.hostname or "localhost",
    "localhost",
    "127.0.0.1",
    "[::1]",
    *env.words("OPSCENTER_ALLOWED_HOSTS"),
]
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"]
SECURE_SSL_REDIRECT = False  # the proxy before us redirects; edges and registry clients follow none
SILENCED_SYSTEM_CHECKS = ["security.W008"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("OPSCENTER_BEHIND_PROXY") else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
CSRF_FAILURE_VIEW = "opscenter.views.csrf_failure"
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "registry",
    "catalog",
    "publishing",
    "edges",
    "logs",
    "rollouts",
    "drift",
    "trials",
    "opscenter",
]
MIDDLEWARE = [
    "opscenter.middleware.DeviceCalls",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "opscenter.middleware.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "opscenter.middleware.PageAnswers",
]
APPEND_SLASH = False  # no client of ours follows redirects
ROOT_URLCONF = "opscenter.urls"
WSGI_APPLICATION = "opscenter.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "opscenter.context.header",
            ]
        },
    }
]

DATABASE_URL = env.text("DATABASE_URL")
DATABASES: dict[str, dict[str, Any]]
if DATABASE_URL:
    try:
        DATABASES = {"default": dict(dj_database_url.parse(DATABASE_URL))}
    except ValueError as exc:  # its message may hold the password
        raise ImproperlyConfigured("DATABASE_URL is not of the form postgres://user:password@host:port/name.") from exc
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        # A request holds a connection only while it runs; min_size 0 so that a forked worker inherits none.
        _pool = {"min_size": 0, "max_size": env.integer("OPSCENTER_DB_POOL", 16)}
        DATABASES["default"].setdefault("OPTIONS", {})["pool"] = _pool  # beside sslmode and the like of the URL
else:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "opscenter.sqlite3"}}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Opening is dear, and the last connection to close writes the whole WAL back: a thread keeps its own.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a transaction that upgrades to write later cannot wait, it fails at once
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.text("REDIS_URL")
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
CELERY_BROKER_URL = REDIS_URL or "filesystem://localhost"
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {}
    if REDIS_URL
    else {
        "data_folder_in": str(DATA / "broker/queue"),
        "data_folder_out": str(DATA / "broker/queue"),
        "control_folder": str(DATA / "broker/control"),
        "store_processed": False,
        "polling_interval": 0.2,
    }
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
# The database is the truth and a queued message only a hint, so beat looks for what is waiting or was abandoned.
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "recover publishes": {"task": "publishing.tasks.recover_publishes", "schedule": 15.0},
    "follow replaced publishes": {"task": "edges.tasks.follow_replacements", "schedule": 15.0},
    "advance rollouts": {"task": "rollouts.tasks.advance_rollouts", "schedule": 5.0},
    "compact logs": {"task": "logs.tasks.compact", "schedule": 15.0},
    "publish Delta tables of logs": {"task": "logs.tasks.publish_delta", "schedule": 60.0},
    "expire logs": {"task": "logs.tasks.expire_logs", "schedule": 600.0},
    "roll up logs": {"task": "logs.tasks.roll_up", "schedule": 10.0},
    "run assays": {"task": "drift.tasks.run_assays", "schedule": 30.0},
    "pause replaced assays": {"task": "drift.tasks.pause_replaced_assays", "schedule": 30.0},
    "drop old rollups": {"task": "logs.tasks.drop_old_rollups", "schedule": 900.0},
    "prune edge signing keys": {"task": "edges.tasks.prune_signing_keys", "schedule": 3600.0},
    "prune edge assertions": {"task": "edges.tasks.prune_assertions", "schedule": 600.0},
    "recover log exports": {"task": "logs.tasks.recover_exports", "schedule": 15.0},
    "expire log exports": {"task": "logs.tasks.expire_exports", "schedule": 3600.0},
    "sweep model uploads": {"task": "catalog.tasks.sweep_uploads", "schedule": 3600.0},
    "sweep registry uploads": {"task": "registry.tasks.sweep_uploads", "schedule": 3600.0},
}
# Sent by name with the publish's id when a publish has arrived, so that publishing need not know who waits for it.
PUBLISHED_TASKS = ["edges.tasks.follow_publish"]

AUTH_USER_MODEL = "catalog.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PAGINATION_CLASS": "common.api.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "common.api.exception_handler",
    # Throttles know an address by what our proxy wrote down last; clients can write the rest of the header.
    "NUM_PROXIES": 1 if SECURE_PROXY_SSL_HEADER else 0,
    "DEFAULT_THROTTLE_RATES": {"login": "20/min"},
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
REST_KNOX = {"TOKEN_TTL": None, "AUTH_HEADER_PREFIX": "Token"}
SPECTACULAR_SETTINGS = {
    "TITLE": "OpsCenter",
    "VERSION": "v1",
    "DESCRIPTION": "Publish ML pipelines, run them at the edge, and read what every site infers.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {"RolloutStateEnum": "rollouts.models.State", "EdgeStateEnum": "edges.states.State"},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
UNFOLD = {
    "SITE_TITLE": "OpsCenter admin",
    "SITE_HEADER": "OpsCenter",
    "SITE_URL": "/",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("favicon.svg")},
    ],
    "STYLES": [lambda request: static("admin.css")],
    "SCRIPTS": [lambda request: static("admin.js")],
    "COLORS": lambda request: {},  # they are in admin.css: from here they would be a style element, which needs a hole
    "DASHBOARD_CALLBACK": "opscenter.admin.dashboard",
    "SIDEBAR": {"navigation": "opscenter.admin.navigation"},
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
LOCALE_PATHS = [BASE_DIR / "locale"]  # docs/translating.md
# What browsers may ask for: English, and the languages whose texts are compiled.
LANGUAGES = [
    (code, get_language_info(code)["name"])
    for code in ("en", *sorted(file.parts[-3] for file in LOCALE_PATHS[0].glob("*/LC_MESSAGES/django.mo")))
]
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = Path(env.text("OPSCENTER_STATIC", str(BASE_DIR / "var/static")))
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_KEEP_ONLY_HASHED_FILES = True

# Segments of logs: a folder, or s3://bucket/prefix and the like (docs/logs.md).
LOGS_URL = env.text("OPSCENTER_LOGS_URL") or str(DATA / "logs")
# Whether edges may ship logs, until an administrator says otherwise in the console (the chart's edgelb and pipelines).
EDGE_OBSERVABILITY = env.flag("OPSCENTER_EDGE_OBSERVABILITY", default=True)
LOGS_DELTA = env.flag("OPSCENTER_LOGS_DELTA")  # whether segments are also published as Delta tables
MODEL_ROOT = DATA / "models"
MODEL_MAX_BYTES = env.integer("OPSCENTER_MODEL_MAX_BYTES", 50 * 1024**3)
FILE_UPLOAD_HANDLERS = ["catalog.uploads.NoFiles"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 12 * 1024**2  # above the largest log page; models and blobs are streamed past it

LOG_EXPORT_ROOT = DATA / "log-exports"
LOG_EXPORT_DAYS = env.integer("OPSCENTER_LOG_EXPORT_DAYS", 7)  # files of exports are kept so long

# The built-in OCI registry of the embedded default: off as soon as another registry is configured by the environment.
REGISTRY_ENABLED = env.flag("OPSCENTER_REGISTRY", default=not env.text("OCI_REGISTRY"))
REGISTRY_ROOT = DATA / "registry"
REGISTRY_USERNAME = "opscenter"

# The registry that publishes go to (the chart's `ociRegistry.*`): fills the admin console's registry settings at first.
OCI_REGISTRY = env.text("OCI_REGISTRY")
OCI_REPOSITORY = env.text("OCI_REPOSITORY", "opscenter")
OCI_EMAIL = env.text("OCI_EMAIL")
OCI_USERNAME = env.text("OCI_USERNAME")
OCI_PASSWORD = env.text("OCI_PASSWORD")
OCI_PLAIN_HTTP = env.flag("OCI_PLAIN_HTTP")
OCI_PROXY = env.text("OCI_PROXY")
OCI_ENABLED = env.flag("OCI_ENABLED", default=True)
DOCKER_CONFIG = env.text("DOCKER_CONFIG")  # a folder with config.json: logins for registries without a username
# The engine image that publishes take along: one reference, or arch=reference,… (see docs/publishing.md).
ENGINE_IMAGE = env.text("ENGINE_IMAGE")
ENGINE_IMAGE_USERNAME = env.text("ENGINE_IMAGE_USERNAME")
ENGINE_IMAGE_PASSWORD = env.text("ENGINE_IMAGE_PASSWORD")
ENGINE_IMAGE_PLAIN_HTTP = env.flag("ENGINE_IMAGE_PLAIN_HTTP")
ENGINE_PLATFORMS = env.words("ENGINE_PLATFORMS")

# Trials of a pipeline version: the engine's command, run beside the center; none where it is not installed.
_engine = find_spec("opsengine")
ENGINE_COMMAND = shlex.split(env.text("OPSCENTER_ENGINE_COMMAND")) or (
    [sys.executable, "-m", "opsengine"] if _engine else []
)
ENGINE_PATH = str(Path(_engine.origin).parents[1]) if _engine and _engine.origin else ""
TRIALS_AT_ONCE = env.integer("OPSCENTER_TRIALS_AT_ONCE", 2)
TRIAL_SECONDS = 20

# Edges. Where engines find us: the seeds' `<domain>/edge`; a scheme is kept only when it is not https.
TRUST_DOMAIN = env.text("OPSCENTER_TRUST_DOMAIN", "opscenter")
EDGE_HOST = f"{_public.netloc if _https else PUBLIC_URL}/edge"
EDGE_CHECKIN_SECONDS = env.integer("OPSCENTER_EDGE_CHECKIN_SECONDS", 30)
EDGE_HOLD_SECONDS = env.integer("OPSCENTER_EDGE_HOLD_SECONDS", 2)
# Calls a minute. An address may be the gateway of a whole site, so it may do what thousands of edges do.
EDGE_JOINS_PER_MINUTE = env.integer("OPSCENTER_EDGE_JOINS_PER_MINUTE", 60)
EDGE_CALLS_PER_MINUTE = env.integer("OPSCENTER_EDGE_CALLS_PER_MINUTE", 600)
EDGE_ADDRESS_CALLS_PER_MINUTE = env.integer("OPSCENTER_EDGE_ADDRESS_CALLS_PER_MINUTE", 30_000)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": f"%(asctime)s %(levelname)s {env.text('OPSCENTER_ROLE', '-')} %(name)s: %(message)s"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("OPSCENTER_LOG_LEVEL", "INFO")},
    # Celery tells of every task at INFO, Django of every 404 at WARNING (a push begins with some): failures are above.
    "loggers": {
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
    },
}

for _folder in (STATIC_ROOT, DATA / "broker/queue", DATA / "broker/control"):
    _folder.mkdir(parents=True, exist_ok=True)
