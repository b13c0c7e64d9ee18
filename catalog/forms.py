"""Forms of workspaces, models and pipelines: the form of input, and no rule of the domain."""

from typing import Any

from django import forms

from catalog import operations
from catalog.models import ModelVersion, Role, name_validator

NAME_HELP = "Lower-case letters, digits and hyphens."


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


def _select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def _choices(values: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(value, value) for value in values]


class WorkspaceForm(forms.Form):
    """A new workspace."""

    name = forms.CharField(
        max_length=128, widget=_text(autofocus=True), help_text="For example the team or the site it is for."
    )


class MemberForm(forms.Form):
    """Who joins a workspace, and as what."""

    email = forms.EmailField(label="E-mail address", widget=forms.EmailInput(attrs={"class": "form-control"}))
    role = forms.ChoiceField(choices=Role.choices, initial=Role.COLLABORATOR, widget=_select())


class UploadForm(forms.Form):
    """A model's file and what it is."""

    name = forms.CharField(max_length=63, validators=[name_validator], widget=_text(), help_text=NAME_HELP)
    file = forms.FileField(
        label="File", widget=forms.FileInput(attrs={"class": "form-control", "accept": ".onnx,.zip"})
    )
    framework = forms.ChoiceField(
        required=False,
        choices=_choices(operations.FRAMEWORKS),
        widget=_select(),
        help_text="Python: a zip with a manifest.json.",
    )
    arch = forms.ChoiceField(label="Architecture", choices=_choices(operations.ARCHITECTURES), widget=_select())
    accel = forms.ChoiceField(label="Acceleration", choices=_choices(operations.ACCELERATORS), widget=_select())
    tensor_fields = forms.CharField(
        required=False,
        label="Dataset columns",
        widget=_text(placeholder="for example tensor"),
        help_text="Columns that feed the inputs, in order, separated by commas. Empty: columns named as the inputs.",
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
        validators=[name_validator],
        widget=_text(autofocus=True),
        help_text=f"{NAME_HELP} Part of the published address.",
    )


class StepsForm(forms.Form):
    """The model versions that a pipeline version runs one after another: a select a step, all named `steps`."""

    def __init__(self, usable: list[ModelVersion], chosen: list[str], data: Any = None) -> None:
        super().__init__(data)
        self.usable = usable
        by_uuid = {str(version.uuid): version for version in usable}
        self.versions = [by_uuid[uuid] for uuid in chosen if uuid in by_uuid]  # an empty select is no step
        empty = 1 if data or not self.versions else 0
        self.slots: list[ModelVersion | None] = [*self.versions, *[None] * empty]

    def clean(self) -> dict[str, Any]:
        """At least one step."""
        if not self.versions:
            raise forms.ValidationError("Choose a model version for the first step.")
        return self.cleaned_data
