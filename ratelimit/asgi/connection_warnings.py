"""Connection warnings: what the first requests tell about the way in which the app is deployed, each said once."""

from typing import Final

from starlette.requests import HTTPConnection

from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity

WATCHED_REQUESTS: Final = 100
"""Requests that are looked at; what is wrong with a deployment shows at once, and later ones should cost nothing."""

_FORWARDED: Final = ("x-forwarded-for", "forwarded")
_FIELDS: Final = ("token", "org", "ip", "plan")


class ConnectionWarnings:
    """Looks at the first requests of an app, and at who makes them.

    Says which limits no identity has met; and, where the app has no `identify` of its own, that a proxy's header is ignored
    because no proxy is trusted, that a caller sends several credentials, and that a client has no address, as behind a
    Unix socket, where some limit needs one.
    """

    def __init__(self, limiter: Limiter, *, has_own_identify: bool) -> None:
        self._has_own_identify, self._trusts_proxies = has_own_identify, bool(limiter.settings.trusted_proxies)
        self._resolver, self._warn_once = limiter.resolver, limiter.observer.warn_once
        self._left = WATCHED_REQUESTS
        self._met: set[str] = set()

    def watch(self, connection: HTTPConnection, identity: Identity) -> bool:
        """Look at one request, and say whether to go on."""
        self._left -= 1
        self._met |= {name for name in _FIELDS if getattr(identity, name)}
        self._met |= {name for name, value in identity.dimensions.items() if value}
        if not self._has_own_identify:
            self._watch_deployment(connection)
        if not self._left:
            self._say_what_was_not_met()
        return self._left > 0

    def _watch_deployment(self, connection: HTTPConnection) -> None:
        headers, client = connection.headers, (connection.scope.get("client") or ("",))[0]
        seen = next((name for name in _FORWARDED if name in headers), None)
        # A server that believes the header itself has put the client's address in place of the proxy's.
        if seen and not self._trusts_proxies and (not client or client not in ",".join(headers.getlist(seen))):
            self._warn_once(
                f"requests have {seen}, which is ignored, since no proxy is trusted: behind a proxy, all its clients are "
                "one address; list the proxy's network in trusted_proxies [RL216]"
            )
        if "authorization" in headers and "x-api-key" in headers:
            self._warn_once(
                "requests have both Authorization and X-API-Key; the default identify counts them by the API key [RL217]"
            )
        if not self._trusts_proxies and not client and self._resolver.named.counts_by("ip"):
            self._warn_once(
                "requests have no client address, as behind a Unix socket, so limits by ip do not apply: write "
                "trusted_proxies=['unix'] to believe X-Forwarded-For there [RL218]"
            )

    def _say_what_was_not_met(self) -> None:
        for policy in self._resolver.named.charged_by_requests():
            missing = sorted({*policy.per} - {"endpoint", "method", *self._resolver.sources, *self._met})
            if missing:
                self._warn_once(
                    f"{policy.kind} {policy.name!r} did not apply to any of the first {WATCHED_REQUESTS} requests: identify "
                    f"has found no {' and no '.join(missing)} [RL219]"
                )
