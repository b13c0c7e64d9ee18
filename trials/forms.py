"""The form of a trial."""

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from trials.operations import LARGEST_REQUEST

ARROW = "application/vnd.apache.arrow.file"
JSON = "application/json; format=pandas-records"


class RequestForm(forms.Form):
    """Records that are typed, or a file with them."""

    records = forms.CharField(
        required=False,
        label=_("Records"),
        widget=forms.Textarea(attrs={"class": "form-control font-monospace", "rows": 12, "spellcheck": "false"}),
        help_text=_("Pandas records in JSON, as /infer of an edge takes them."),
    )
    file = forms.FileField(
        required=False,
        label=_("Or a file"),
        widget=forms.FileInput(attrs={"class": "form-control", "accept": ".json,.arrow"}),
        help_text=_("JSON or Arrow, at most 1 MiB. It goes before what is typed."),
    )

    def clean_file(self) -> "UploadedFile[bytes] | None":
        """Not larger than one is read."""
        file: UploadedFile[bytes] | None = self.cleaned_data["file"]
        if file and (file.size or 0) > LARGEST_REQUEST:
            raise forms.ValidationError(_("The file has more than 1 MiB: take fewer rows."))
        return file

    def clean(self) -> dict[str, Any]:
        """Something is sent."""
        given = super().clean() or {}
        if not self.errors and not given.get("file") and not given.get("records", "").strip():
            raise forms.ValidationError(_("Type records, or choose a file."))
        return given

    def request(self) -> tuple[bytes, str]:
        """The body and its content type."""
        file = self.cleaned_data["file"]
        if file is None:
            return self.cleaned_data["records"].encode(), JSON
        body: bytes = file.read()
        return body, ARROW if body.startswith(b"ARROW1") else JSON
