"""Forms of workspaces, models and pipelines: the form of input, and no rule of the domain."""

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from catalog import operations
from catalog.models import ModelVersion, Role, name_validator
from catalog.slots import Slot, steps_of
from common.errors import Invalid

NAME_HELP = _("Lower-case letters, digits and hyphens.")


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


def _select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def _choices(values: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


class WorkspaceForm(forms.Form):
    """A new workspace."""

    name = forms.CharField(
        max_length=128,
        label=_("Name"),
        widget=_text(autofocus=True),
        help_text=_("For example the team or the site it is for."),
    )


class MemberForm(forms.Form):
    """Who joins a workspace, and as what."""

    email = forms.EmailField(label=_("E-mail address"), widget=forms.EmailInput(attrs={"class": "form-control"}))
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.COLLABORATOR, widget=_select())


class UploadForm(forms.Form):
    """A model's file and what it is."""

    name = forms.CharField(
        max_length=63, label=_("Name"), validators=[name_validator], widget=_text(), help_text=NAME_HELP
    )
    file = forms.FileField(
        label=_("File"), widget=forms.FileInput(attrs={"class": "form-control", "accept": ".onnx,.zip"})
    )
    framework = forms.ChoiceField(
        required=False,
        label=_("Framework"),
        choices=_choices(operations.FRAMEWORKS),
        widget=_select(),
        help_text=_("Python: a zip with a manifest.json."),
    )
    arch = forms.ChoiceField(label=_("Architecture"), choices=_choices(operations.ARCHITECTURES), widget=_select())
    accel = forms.ChoiceField(label=_("Acceleration"), choices=_choices(operations.ACCELERATORS), widget=_select())
    tensor_fields = forms.CharField(
        required=False,
        label=_("Dataset columns"),
        widget=_text(placeholder=_("for example tensor")),
        help_text=_("Columns that feed the inputs, in order, separated by commas. Empty: columns named as the inputs."),
    )

    def clean_framework(self) -> str:
        """ONNX unless it is said."""
        return self.cleaned_data["framework"] or operations.FRAMEWORKS[0]

    def clean_tensor_fields(self) -> list[str] | None:
        """The names, or None for "as the inputs are named"."""
        fields = [field.strip() for field in self.cleaned_data["tensor_fields"].split(",")]
        return [field for field in fields if field] or None


class PipelineForm(forms.Form):
    """A new pipeline."""

    name = forms.CharField(
        max_length=63,
        label=_("Name"),
        validators=[name_validator],
        widget=_text(autofocus=True),
        help_text=_("Lower-case letters, digits and hyphens. Part of the published address."),
    )


class StepsForm(forms.Form):
    """The steps of a pipeline version: the page draws a slot a step."""

    def __init__(self, usable: list[ModelVersion], chosen: list[Slot], data: Any = None) -> None:
        super().__init__(data)
        self.usable = usable
        self.chosen = chosen or [Slot("model")]

    @property
    def slots(self) -> list[Slot]:
        """What is drawn: each with room for more."""
        return [slot.with_spares() for slot in self.chosen]

    def steps(self) -> list[dict[str, Any]]:
        """What was meant. Raises `Invalid`."""
        found = steps_of(self.chosen, {str(version.uuid): version for version in self.usable})
        if not found:
            raise Invalid(gettext("Choose a model version for the first step."))
        return found


class ConfigForm(forms.Form):
    """How a model version is fed."""

    tensor_fields = forms.CharField(
        required=False,
        label=_("Dataset columns"),
        widget=_text(),
        help_text=_("Columns that feed the inputs, in order, separated by commas. Empty: columns named as the inputs."),
    )
    max_rows = forms.IntegerField(
        required=False,
        min_value=2,
        label=_("Batch at most so many rows"),
        widget=forms.NumberInput(attrs={"class": "form-control"}),
        help_text=_("Rows of callers that ask at the same time run together. Empty: no batching."),
    )
    max_wait_us = forms.IntegerField(
        required=False,
        min_value=0,
        initial=500,
        label=_("Wait for others at most, in µs"),
        widget=forms.NumberInput(attrs={"class": "form-control"}),
    )

    def values(self) -> dict[str, Any]:
        """What `operations.configure_model_version` is told."""
        given = self.cleaned_data
        fields = [name for name in (part.strip() for part in given["tensor_fields"].split(",")) if name]
        batching = {"max_rows": given["max_rows"], "max_wait_us": given["max_wait_us"] or 0}
        return {"tensor_fields": fields or None, "batching": batching if given["max_rows"] else None}
