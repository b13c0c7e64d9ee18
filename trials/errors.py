"""Anticipated failures of trials."""

from common import errors


class RequestRefused(errors.Invalid):
    """The pipeline does not take this request: in the engine's words."""

    code = "request_refused"


class TrialFailed(errors.Conflict):
    """The pipeline cannot be loaded, or took more memory or time than a trial may."""

    code = "trial_failed"


class NotTried(errors.Conflict):
    """Pipelines with Python steps are not tried here, and none are where there is no engine."""

    code = "not_tried"


class TrialsBusy(errors.RateLimited):
    """As many trials as may run at once do."""

    code = "trials_busy"
