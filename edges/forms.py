"""Forms of edges: the form of input, and no rule of the domain."""

from typing import TYPE_CHECKING, Any

from django import forms

from edges.states import State
from publishing.models import Publish

SHOWN_STATES = [state for state in State if state is not State.REMOVED]


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


class FilterForm(forms.Form):
    """Which edges of a pipeline are listed."""

    q = forms.CharField(
        required=False,
        max_length=128,
        label="Filter Edges",
        widget=forms.TextInput(attrs={"class": "form-control", "type": "search", "placeholder": "Name or tag"}),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[("", "Any state"), *((state.value, state.value.capitalize()) for state in SHOWN_STATES)],
        widget=forms.Select(attrs={"class": "form-select"}),
    )


if TYPE_CHECKING:
    ModelChoiceField = forms.ModelChoiceField[Publish]
else:
    ModelChoiceField = forms.ModelChoiceField  # not subscriptable at run time


class PublishChoice(ModelChoiceField):
    """Publishes as people tell them apart."""

    def label_from_instance(self, obj: Publish) -> str:
        """Which version, and since when it can be run."""
        when = f", published {obj.published_at:%Y-%m-%d %H:%M} UTC" if obj.published_at else ""
        return f"Publish {obj.pk}, version {str(obj.pipeline_version.uuid)[:8]}{when}"


class AddForm(forms.Form):
    """A new edge."""

    name = forms.CharField(
        max_length=128,
        widget=_text(autofocus=True),
        help_text="Unique in the whole center; for example the site's name. Its logs carry it.",
    )
    publish = PublishChoice(queryset=None, empty_label=None, widget=forms.Select(attrs={"class": "form-select"}))
    tags = forms.CharField(required=False, widget=_text(), help_text="Optional, separated by commas.")
    cpus = forms.FloatField(
        initial=1, label="CPUs", widget=forms.NumberInput(attrs={"class": "form-control", "step": "0.1", "min": "0.1"})
    )
    memory = forms.CharField(initial="1Gi", widget=_text(), help_text="For example 512Mi or 2Gi.")

    def __init__(self, publishes: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["publish"].queryset = publishes  # type: ignore[attr-defined]

    def clean_tags(self) -> list[str]:
        """Each tag once, in the order given."""
        tags = [tag.strip() for tag in self.cleaned_data["tags"].split(",")]
        return list(dict.fromkeys(tag for tag in tags if tag))
