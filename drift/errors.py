"""Anticipated failures of drift."""

from common import errors


class NameTaken(errors.Conflict):
    """The pipeline has an assay of that name."""

    code = "name_taken"


class BaselineInUse(errors.Conflict):
    """Assays compare with it."""

    code = "baseline_in_use"


class NoBaseline(errors.Invalid):
    """The baseline has too few numbers to compare with."""

    code = "no_baseline"


class NotNow(errors.Conflict):
    """The assay's status does not allow it. `data["status"]` is the status."""

    code = "assay_status"
