from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RolloutsConfig(AppConfig):
    name = "rollouts"
    verbose_name = _("Rollouts")
