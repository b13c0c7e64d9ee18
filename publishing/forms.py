"""The form of a publish that replaces others."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _

from publishing.history import Candidate
from publishing.models import Publish


class ReplaceForm(forms.Form):
    """Which publishes hand their edges over. The page draws a checkbox a candidate, all named `replaces`."""

    allow_breaking = forms.BooleanField(required=False)

    def __init__(self, candidates: list[Candidate], data: Any = None) -> None:
        super().__init__(data)
        by_pk = {str(candidate.publish.pk): candidate.publish for candidate in candidates}
        asked = data.getlist("replaces") if data else []
        self.chosen: list[Publish] = [by_pk[pk] for pk in asked if pk in by_pk]
        self.unknown = [pk for pk in asked if pk not in by_pk]

    def clean(self) -> dict[str, Any]:
        """Nothing that was replaced or went away meanwhile is left out silently."""
        if not self.chosen and not self.unknown:
            raise forms.ValidationError(_("Choose at least one publish, or close this and publish without replacing."))
        if self.unknown:
            raise forms.ValidationError(
                _("A publish that you chose can no longer be replaced: look at the list again.")
            )
        return self.cleaned_data
