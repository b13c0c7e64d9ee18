"""What the registry refuses, in the codes of OCI distribution-spec 1.1 ("Error Codes") and in words for people."""

from typing import Any


class RegistryError(Exception):
    """A refusal the client can understand. `detail` is what a program needs to repair it."""

    code = "UNSUPPORTED"

    def __init__(self, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail

    def entries(self) -> list[dict[str, Any]]:
        """The members of the answer's `errors` list."""
        return [{"code": self.code, "message": self.message, "detail": self.detail}]


class Unauthorized(RegistryError):
    code = "UNAUTHORIZED"


class Unsupported(RegistryError):
    pass


class EndpointUnknown(RegistryError):
    pass


class MethodRefused(RegistryError):
    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"This address answers only {', '.join(allowed)}.")
        self.allowed = allowed


class NameInvalid(RegistryError):
    code = "NAME_INVALID"


class NameUnknown(RegistryError):
    code = "NAME_UNKNOWN"


class DigestInvalid(RegistryError):
    code = "DIGEST_INVALID"


class SizeInvalid(RegistryError):
    code = "SIZE_INVALID"


class LengthRequired(RegistryError):
    code = "SIZE_INVALID"


class BlobUnknown(RegistryError):
    code = "BLOB_UNKNOWN"


class UploadUnknown(RegistryError):
    code = "BLOB_UPLOAD_UNKNOWN"


class UploadBusy(RegistryError):
    code = "BLOB_UPLOAD_INVALID"


class ChunkOutOfOrder(RegistryError):
    """The chunk does not begin where the upload ends; `offset` is the number of bytes the registry holds."""

    code = "BLOB_UPLOAD_INVALID"

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, {"offset": offset})
        self.offset = offset


class ManifestInvalid(RegistryError):
    code = "MANIFEST_INVALID"


class ManifestTooLarge(RegistryError):
    code = "SIZE_INVALID"


class ManifestUnknown(RegistryError):
    code = "MANIFEST_UNKNOWN"


class ManifestBlobUnknown(RegistryError):
    """The manifest names content that its repository does not hold: one entry for each missing digest."""

    code = "MANIFEST_BLOB_UNKNOWN"

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"The manifest names content that this repository does not hold: {', '.join(missing)}.")
        self.missing = missing

    def entries(self) -> list[dict[str, Any]]:
        return [
            {
                "code": self.code,
                "message": f"The manifest names {digest}, which this repository does not hold: push it first.",
                "detail": {"digest": digest},
            }
            for digest in self.missing
        ]


class StorageFull(RegistryError):
    """The registry's disk has no room. A 5xx answer may carry a code outside the specification's list."""

    code = "INSUFFICIENT_STORAGE"
