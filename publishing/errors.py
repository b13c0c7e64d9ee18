"""Anticipated failures of publishing."""

from common import errors


class RegistryNotConfigured(errors.Conflict):
    code = "registry_not_configured"


class ModelsNotReady(errors.Conflict):
    """A version cannot be published because of a model in it."""

    code = "models_not_ready"


class NotPublished(errors.Conflict):
    """Only what is in the registry can be replaced."""

    code = "not_published"


class BreakingChange(errors.Conflict):
    """What replaces changes what callers send or readers get. `data["differences"]` says what."""

    code = "breaking_change"


class NotFailed(errors.Conflict):
    """Only a publish that failed can be tried again."""

    code = "not_failed"


class UnusableEngineConfig(errors.Invalid):
    code = "unusable_engine_config"


class UnusableGolden(errors.Invalid):
    """A golden request that no engine could run."""

    code = "unusable_golden"


class OtherGolden(errors.Conflict):
    """A version is published with another golden request, or without one; what is published never changes."""

    code = "other_golden"


class UnusableRegistry(errors.Invalid):
    """Registry settings that no registry could have."""

    code = "unusable_registry"


class UnusableEngineImage(errors.Conflict):
    """`ENGINE_IMAGE` names no image that fits."""

    code = "unusable_engine_image"


class NotRunning(errors.Conflict):
    """Only a publish that waits or runs can be cancelled."""

    code = "not_running"


class UnusableSigningKey(errors.Invalid):
    """A key that cosign could not verify with, or a name that is taken."""

    code = "unusable_signing_key"


class UnusableExport(errors.Invalid):
    """A file that is no OCI layout of an export, or a publish that cannot be written to one."""

    code = "unusable_export"
