"""How often one address may try to log in: pages and the API share the limit."""

from django.http import HttpRequest
from rest_framework.throttling import SimpleRateThrottle


class LoginThrottle(SimpleRateThrottle):
    """`DEFAULT_THROTTLE_RATES["login"]` of wrong attempts; a right one is taken back."""

    scope = "login"

    def get_cache_key(self, request: HttpRequest, view: object) -> str:
        """The key that DRF's scoped throttle of the API's login counts under too."""
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}  # type: ignore[arg-type]

    def forgive(self) -> None:
        """Takes the last attempt back."""
        self.cache.set(self.key, self.history[1:], self.duration)  # type: ignore[attr-defined]
