"""Forms of edges: the form of input, and no rule of the domain."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from edges.provisioning import BULK, FLEET_EDGES, FLEET_TOKEN_LIFE, NewEdge, numbered, read_names
from edges.states import State
from publishing.models import Publish

SHOWN_STATES = [state for state in State if state is not State.REMOVED]


def _text(**attrs: Any) -> forms.TextInput:
    return forms.TextInput(attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false", **attrs})


def _number(**attrs: Any) -> forms.NumberInput:
    return forms.NumberInput(attrs={"class": "form-control", **attrs})


def _select() -> forms.Select:
    return forms.Select(attrs={"class": "form-select"})


def _tags(text: str) -> list[str]:
    """Each tag once, in the order given."""
    tags = [tag.strip() for tag in text.split(",")]
    return list(dict.fromkeys(tag for tag in tags if tag))


class FilterForm(forms.Form):
    """Which edges are listed."""

    q = forms.CharField(
        required=False,
        max_length=128,
        label=_("Filter Edges"),
        widget=forms.TextInput(attrs={"class": "form-control", "type": "search", "placeholder": _("Name or tag")}),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[("", _("Any state")), *((state.value, state.label) for state in SHOWN_STATES)],
        widget=_select(),
    )
    serves = forms.ChoiceField(
        required=False,
        choices=[
            ("", _("Anything")),
            ("right", _("What it should")),
            ("other", _("Something else")),
            ("failed", _("Its update failed")),
        ],
        widget=_select(),
    )


if TYPE_CHECKING:
    ModelChoiceField = forms.ModelChoiceField[Publish]
else:
    ModelChoiceField = forms.ModelChoiceField  # not subscriptable at run time


class PublishChoice(ModelChoiceField):
    """Publishes as people tell them apart."""

    def label_from_instance(self, obj: Publish) -> str:
        """Which version, and since when it can be run."""
        told = {"publish": obj.pk, "version": str(obj.pipeline_version.uuid)[:8]}
        if not obj.published_at:
            return gettext("Publish %(publish)s, version %(version)s") % told
        told["when"] = f"{obj.published_at:%Y-%m-%d %H:%M} UTC"
        return gettext("Publish %(publish)s, version %(version)s, published %(when)s") % told


class _ToRun(forms.Form):
    """What edges run, and what they may use."""

    publish = PublishChoice(queryset=None, label=_("Publish"), empty_label=None, widget=_select())
    tags = forms.CharField(
        required=False, label=_("Tags"), widget=_text(), help_text=_("Optional, separated by commas.")
    )
    cpus = forms.FloatField(initial=1, label=_("CPUs"), widget=_number(step="0.1", min="0.1"))
    memory = forms.CharField(initial="1Gi", label=_("Memory"), widget=_text(), help_text=_("For example 512Mi or 2Gi."))

    def __init__(self, publishes: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["publish"].queryset = publishes  # type: ignore[attr-defined]

    def clean_tags(self) -> list[str]:
        """Each tag once, in the order given."""
        return _tags(self.cleaned_data["tags"])


class AddForm(_ToRun):
    """A new edge."""

    name = forms.CharField(
        max_length=128,
        label=_("Name"),
        widget=_text(autofocus=True),
        help_text=_("Unique in the whole center; for example the site's name. Its logs carry it."),
    )


class AddManyForm(_ToRun):
    """Many new edges: named one by one, or by a pattern."""

    rows = forms.CharField(
        required=False,
        max_length=1024 * 1024,
        label=_("Names, or CSV"),
        widget=forms.Textarea(attrs={"class": "form-control rows", "rows": 6, "spellcheck": "false"}),
        help_text=_(
            "One name a line; or CSV whose first line is name,tags,cpus,memory, the tags of one separated by ;"
        ),
    )
    pattern = forms.CharField(
        required=False,
        max_length=128,
        label=_("Or a pattern"),
        widget=_text(placeholder="shop-{n:04}"),
        help_text=_("{n} is the number; {n:04} pads it with zeros: shop-0001."),
    )
    first = forms.IntegerField(required=False, initial=1, min_value=0, label=_("First number"), widget=_number())
    count = forms.IntegerField(required=False, min_value=1, max_value=BULK, label=_("How many"), widget=_number())

    def clean(self) -> dict[str, Any]:
        """Names or a pattern."""
        given = super().clean() or self.cleaned_data
        if bool(given.get("rows")) == bool(given.get("pattern")) and "rows" in given and "pattern" in given:
            raise forms.ValidationError(gettext("Paste names, or give a pattern: one of the two."))
        if given.get("pattern") and not given.get("count"):
            self.add_error("count", gettext("Say how many edges the pattern names."))
        return given

    def edges(self) -> list[NewEdge]:
        """The edges that were meant. Raises `Invalid`."""
        given = self.cleaned_data
        like = NewEdge("", tuple(given["tags"]), given["cpus"], given["memory"])
        if given["pattern"]:
            first = 1 if given["first"] is None else given["first"]
            return numbered(given["pattern"], first, given["count"], like)
        return read_names(given["rows"], like)


class FleetTokenForm(_ToRun):
    """One token for many devices alike."""

    pattern = forms.CharField(
        max_length=128,
        label=_("Pattern"),
        widget=_text(placeholder="shop-{n:04}", autofocus=True),
        help_text=_("The devices get their names from it, in the order in which they join. {n:04} pads with zeros."),
    )
    max_edges = forms.IntegerField(
        min_value=1,
        max_value=FLEET_EDGES,
        label=_("At most so many edges"),
        widget=_number(),
        help_text=_("After that many devices the token lets nobody in."),
    )
    hours = forms.FloatField(
        initial=24,
        min_value=0.1,
        max_value=FLEET_TOKEN_LIFE / timedelta(hours=1),
        label=_("Hours that it lives"),
        widget=_number(step="any"),
        help_text=_("At most 720, which are 30 days."),
    )


class TagsForm(forms.Form):
    """Tags for edges that were selected."""

    add = forms.CharField(required=False, label=_("Add tags"), widget=_text(), help_text=_("Separated by commas."))
    take = forms.CharField(required=False, label=_("Remove tags"), widget=_text(), help_text=_("Separated by commas."))

    def clean_add(self) -> list[str]:
        """Each tag once."""
        return _tags(self.cleaned_data["add"])

    def clean_take(self) -> list[str]:
        """Each tag once."""
        return _tags(self.cleaned_data["take"])
