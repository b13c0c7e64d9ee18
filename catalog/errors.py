"""Anticipated failures of the catalog."""

from common import errors


class NameTaken(errors.Conflict):
    code = "name_taken"


class UnusableDefinition(errors.Invalid):
    """A pipeline definition that no engine could run."""

    code = "unusable_definition"
