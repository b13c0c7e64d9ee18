from django.apps import AppConfig
from django.core import checks as django_checks

from opscenter import checks


class OpsCenterConfig(AppConfig):
    name = "opscenter"

    def ready(self) -> None:
        """The refusals of `opscenter.checks` join every `manage.py` command."""
        django_checks.register(checks.check_settings)
