"""Checks how a model version is configured. Pure."""

from typing import Any

from django.utils.translation import gettext as _

from catalog.models import ModelVersion
from common.errors import Invalid

LARGEST_BATCH, LONGEST_WAIT = 100_000, 1_000_000  # rows, microseconds: what engines take


def tensor_fields(version: ModelVersion, fields: list[str] | None) -> list[str] | None:
    """The dataset columns for the inputs, in their order; None: columns named as the inputs. Raises `Invalid`."""
    if fields is None:
        return None
    if not all(isinstance(field, str) and field for field in fields) or len(set(fields)) != len(fields):
        raise Invalid(_("tensor_fields is a list of different column names."))
    if version.inputs and len(fields) != len(version.inputs):
        names = ", ".join(tensor["name"] for tensor in version.inputs)
        raise Invalid(
            _("tensor_fields names %(named)s columns, the model has %(inputs)s inputs: %(names)s.")
            % {"named": len(fields), "inputs": len(version.inputs), "names": names}
        )
    return fields


def batching(version: ModelVersion, told: dict[str, Any] | None) -> dict[str, Any] | None:
    """How many rows of different callers run together, and how long the first waits; None: not. Raises `Invalid`."""
    if told is None:
        return None
    rows, wait = told.get("max_rows"), told.get("max_wait_us")
    if set(told) != {"max_rows", "max_wait_us"} or not (
        _is_whole(rows, 2, LARGEST_BATCH) and _is_whole(wait, 0, LONGEST_WAIT)
    ):
        raise Invalid(
            _(
                'batching is {"max_rows", "max_wait_us"}: 2 to %(largest_batch)s rows, 0 to %(longest_wait)s '
                "microseconds."
            )
            % {"largest_batch": LARGEST_BATCH, "longest_wait": LONGEST_WAIT}
        )
    if any(tensor["shape"] and tensor["shape"][0] is not None for tensor in version.inputs):
        raise Invalid(_("This model takes a fixed number of rows at a time, so it cannot be batched."))
    return {"max_rows": rows, "max_wait_us": wait}


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
