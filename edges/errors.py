"""Anticipated failures of edges. What an engine is told has the codes of `contract/errors.json`."""

from common import errors


class EdgeNameTaken(errors.Conflict):
    code = "edge_name_taken"


class NotPublished(errors.Conflict):
    """The publish is not in the registry (yet), so no edge could pull it."""

    code = "not_published"


class PublishReplaced(errors.Conflict):
    """Edges of this publish were moved on. `data["publish_id"]` is where to."""

    code = "publish_replaced"


class InvalidAssertion(errors.NotAuthenticated):
    """The engine did not prove who it is."""

    code = "invalid_assertion"


class TokenMissing(errors.NotAuthenticated):
    code = "token_missing"


class TokenExpired(errors.NotAuthenticated):
    """A new access token is needed; the engine gets one by itself."""

    code = "token_expired"


class TokenInvalid(errors.NotAuthenticated):
    code = "token_invalid"


class JoinTokenUnknown(errors.Forbidden):
    code = "join_token_unknown"


class JoinTokenExpired(errors.Forbidden):
    code = "join_token_expired"


class JoinTokenUsed(errors.Forbidden):
    code = "join_token_used"


class SessionExpired(errors.Forbidden):
    """No contact for 7 days: only a new bundle helps."""

    code = "session_expired"


class EdgeRemoved(errors.Forbidden):
    code = "edge_removed"


class EdgeBanned(errors.Forbidden):
    code = "edge_banned"


class PipelineNotAssigned(errors.Forbidden):
    """The edge was never told to run this pipeline version, so it may not write its logs."""

    code = "pipeline_not_assigned"


class BodyTooLarge(errors.TooLarge):
    """`data["limit"]` is in bytes."""

    code = "page_too_large"
