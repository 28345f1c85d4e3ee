"""Connection warnings: what the first requests tell about the way in which the app is deployed, each said once."""

import logging
from collections.abc import Callable
from typing import Final

from starlette.requests import HTTPConnection

from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity

logger = logging.getLogger("ratelimit")

_WATCHED_REQUESTS: Final = 100
"""Requests that are looked at; what is wrong with a deployment shows at once, and later ones should cost nothing."""

_FORWARDED: Final = ("x-forwarded-for", "forwarded")


class ConnectionWarnings:
    """Looks at the first requests of an app that has no `identify` of its own.

    Says that a proxy's header is ignored where no proxy is trusted, that a caller sends several credentials, and that a
    client has no address, as behind a Unix socket, where some limit needs one.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._trusts_proxies = bool(limiter.settings.trusted_proxies)
        self._resolver = limiter.resolver
        self._left = _WATCHED_REQUESTS
        self._said: set[str] = set()

    def watching(self, identify: Callable[[HTTPConnection], Identity]) -> Callable[[HTTPConnection], Identity]:
        """Return an `identify` that looks at the first requests that it is asked about."""

        def watching(connection: HTTPConnection) -> Identity:
            if self._left:
                self._left -= 1
                self._watch(connection)
            return identify(connection)

        return watching

    def _watch(self, connection: HTTPConnection) -> None:
        headers = connection.headers
        if not self._trusts_proxies and (seen := next((name for name in _FORWARDED if name in headers), None)):
            self._say(
                f"requests have {seen}, which is ignored, since no proxy is trusted: behind a proxy, all its clients are "
                "one address; list the proxy's network in trusted_proxies"
            )
        if "authorization" in headers and "x-api-key" in headers:
            self._say("requests have both Authorization and X-API-Key; the default identify counts them by the API key")
        has_address = bool((connection.scope.get("client") or ("",))[0])
        if not self._trusts_proxies and not has_address and self._resolver.named.counts_by("ip"):
            self._say(
                "requests have no client address, as behind a Unix socket, so limits by ip do not apply: write "
                "trusted_proxies=['unix'] to believe X-Forwarded-For there"
            )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)
