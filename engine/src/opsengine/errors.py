"""Everything that can go wrong in the engine, in one tree.

    EngineError
    ├── SettingsError            a wrong environment: the start stops with exit code 2
    ├── StateError               PERSIST_DIR cannot be used
    ├── DamagedPage              a page of the log that cannot be read
    ├── PipelineError            an artifact that this engine cannot serve
    ├── RequestError             a caller's fault; `status` is the HTTP status
    ├── RegistryError            the registry refused or holds something else: trying again does not help
    │   ├── RegistryUnavailable  a passing fault: try again later
    │   ├── NoRoom               the disk is too full
    │   └── SignatureError       the publish is not signed as it must be
    ├── CenterUnavailable        no answer, or a passing fault of the center
    └── CenterRefused            the center's own refusal, with its `code`

Every message is for a person: one sentence that says what is wrong and what to do.
"""

FORBIDDEN = 403
# Codes of contract/errors.json that stay until a new bundle is given.
FINAL_CODES = frozenset(
    {
        "join_token_unknown",
        "join_token_expired",
        "join_token_used",
        "session_expired",
        "edge_removed",
        "edge_banned",
    }
)


class EngineError(Exception):
    """Root of all anticipated failures."""


class SettingsError(EngineError):
    """An environment variable is missing or wrong."""


class StateError(EngineError):
    """PERSIST_DIR cannot be used by this process."""


class InUse(StateError):
    """Another process holds PERSIST_DIR."""


class DamagedPage(EngineError):
    """What is stored of a page of the log is none."""


class PipelineError(EngineError):
    """A pipeline artifact is broken, or needs what this engine does not have."""


class RequestError(EngineError):
    """A request that cannot be answered; `status` is the HTTP status to answer with."""

    def __init__(self, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class RegistryError(EngineError):
    """The registry refused, or what it holds is not what was asked for."""


class RegistryUnavailable(RegistryError):
    """The registry did not answer, or only with a passing fault."""


class SignatureError(RegistryError):
    """A signature is required, and there is none that holds."""


class NoRoom(RegistryError):
    """The disk has no room for what is wanted: try again later, somebody may make room."""


class CenterUnavailable(EngineError):
    """The center did not answer, or only with a passing fault; `retry_after` is in seconds.

    `was_long`: the request was under way and did not get through, as where it is too much for the link or for a proxy.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, was_long: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.was_long = was_long


class CenterRefused(EngineError):
    """The center refused: `code` is one of contract/errors.json, `details` the whole answer."""

    def __init__(self, status: int, code: str, message: str, details: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details or {}

    @property
    def is_final(self) -> bool:
        """Whether only a new bundle can help."""
        return self.code in FINAL_CODES

    @property
    def is_hold(self) -> bool:
        """Whether the center takes no log rows for now, whatever they are: they are kept for when it does.

        A 403 is about who sends, not about what is sent; but rows of a pipeline that is not this edge's it never takes.
        """
        return self.status == FORBIDDEN and self.code != "pipeline_not_assigned" and not self.is_final
