from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EdgesConfig(AppConfig):
    name = "edges"
    verbose_name = _("Edges")
