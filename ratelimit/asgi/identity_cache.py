"""Identity cache: who has sent a credential is looked up once for many requests."""

import inspect
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, Final, overload

from starlette.requests import HTTPConnection

from ratelimit._utils.bounded_cache import LruCache
from ratelimit._utils.validation import is_int_between, is_number
from ratelimit.asgi.callers import IdentifyError, checked_identity, place_of
from ratelimit.asgi.identify import Identify
from ratelimit.clock import monotonic
from ratelimit.errors import ConfigurationError
from ratelimit.model.identity import Identity

Credential = Callable[[HTTPConnection], str]
"""Returns all that `identify` reads of a request, apart from the client's address; empty where there is nothing."""

_FAILURE_TTL_S: Final = 1.0
"""Seconds for which a look-up that found no caller, or failed, is remembered at most."""

_MAX_AGE_IN_TTLS: Final = 10
"""An identity is looked up again after so many `ttl`, also of a caller that is refused all the time."""

_MAX_SIZE: Final = 10_000_000
_HEADERS: Final = ("authorization", "x-api-key", "cookie")
_BY_ADDRESS: Final = "by address"
"""Stands for a credential whose identities hold the client's address, and are cached for each address."""


def sent_credentials(connection: HTTPConnection) -> str:
    """Return the `Authorization`, `X-API-Key` and `Cookie` of a request."""
    sent = [connection.headers.get(name, "") for name in _HEADERS]
    return "\n".join(sent) if any(sent) else ""


class IdentityCache:
    """Remember for `ttl` seconds what an `identify` finds: `identify=IdentityCache(ttl=30)(identify)`.

    Identities are cached by the hash of the credential that was sent; those that hold the client's address, for each
    address. At most `max` are held; the one that was used longest ago goes first. A look-up that found no caller, or
    failed, is remembered for a second. While a caller is refused, its identity stays cached, up to ten times `ttl`.

    `credential` returns what `identify` reads of a request: an `identify` that reads more than `Authorization`, `X-API-Key`,
    `Cookie` and the address has to say so here, or callers are mixed up. Requests without a credential are not cached. What
    `identify` does beside (`request.state`) is done by the look-up alone; the identity is at `request.state.identity`.
    """

    def __init__(
        self,
        identify: Identify | None = None,
        *,
        ttl: float = 30.0,
        max: int = 10_000,  # noqa: A002 - the usual name
        credential: Credential = sent_credentials,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not is_number(ttl) or not 0 < ttl < float("inf"):
            raise ConfigurationError(f"ttl: must be seconds above 0, got {ttl!r:.50}")
        if not is_int_between(max, 1, _MAX_SIZE):
            raise ConfigurationError(f"max: must be an integer between 1 and {_MAX_SIZE}, got {max!r:.50}")
        if not callable(credential):
            raise ConfigurationError("credential: must be a function of the connection that returns text")
        self._identify, self._ttl, self._max, self._credential, self._clock = identify, ttl, max, credential, clock
        self._cache: LruCache[tuple[bytes, str], _Found | str] = LruCache(max)

    def __len__(self) -> int:
        return len(self._cache)

    @overload
    def __call__(self, subject: HTTPConnection) -> Identity | Awaitable[Identity]: ...
    @overload
    def __call__(self, subject: Identify) -> "IdentityCache": ...
    def __call__(self, subject: Any) -> Any:
        """Return who makes a request; or, given an `identify`, that `identify` with this cache in front of it."""
        if not isinstance(subject, HTTPConnection):
            return IdentityCache(subject, ttl=self._ttl, max=self._max, credential=self._credential, clock=self._clock)
        if self._identify is None:
            raise ConfigurationError("IdentityCache has no identify: write IdentityCache(ttl=30)(identify)")
        key = self._key(subject)
        known = None if key is None else self._cache.get(key)
        if isinstance(known, _Found) and self._clock() < known.until and key is not None:
            self._cache.move_to_end(key)
            return known.result()
        return self._look_up(self._identify, subject)

    def keep(self, connection: HTTPConnection, seconds: float) -> None:
        """Keep the identity of a caller that is refused for so many seconds more."""
        key = self._key(connection)
        known = None if key is None else self._cache.get(key)
        if isinstance(known, _Found) and known.error is None:
            latest = known.found_at + _MAX_AGE_IN_TTLS * self._ttl
            known.until = max(known.until, min(self._clock() + min(seconds, self._ttl), latest))

    def _look_up(self, identify: Identify, connection: HTTPConnection) -> Identity | Awaitable[Identity]:
        try:
            found = identify(connection)
        except Exception as error:
            self._remember(connection, _Found(error=place_of(error)))
            raise
        return self._later(found, connection) if inspect.isawaitable(found) else self._found(found, connection)

    async def _later(self, found: Awaitable[Identity | None], connection: HTTPConnection) -> Identity:
        try:
            identity = await found
        except Exception as error:
            self._remember(connection, _Found(error=place_of(error)))
            raise
        return self._found(identity, connection)

    def _found(self, found: Identity | None, connection: HTTPConnection) -> Identity:
        identity = checked_identity(found)
        self._remember(connection, _Found(identity, is_known=found is not None))
        return identity

    def _remember(self, connection: HTTPConnection, found: "_Found") -> None:
        credential = self._hash(connection)
        if credential is None:
            return
        found.found_at = self._clock()
        found.until = found.found_at + (self._ttl if found.is_known else min(_FAILURE_TTL_S, self._ttl))
        if found.identity is not None and found.identity.ip is not None:
            self._cache.put((credential, ""), _BY_ADDRESS)
            self._cache.put((credential, _address_of(connection)), found)
        else:
            self._cache.put((credential, ""), found)

    def _key(self, connection: HTTPConnection) -> tuple[bytes, str] | None:
        """Return the entry that holds what was found for such a request."""
        credential = self._hash(connection)
        if credential is None:
            return None
        is_by_address = self._cache.get((credential, "")) == _BY_ADDRESS
        return credential, _address_of(connection) if is_by_address else ""

    def _hash(self, connection: HTTPConnection) -> bytes | None:
        sent = self._credential(connection)
        return blake2b(sent.encode("utf-8", "surrogatepass"), digest_size=16).digest() if sent else None


class _Found:
    """What a look-up has found: an identity, no caller (an empty identity), or an error; from when, and until when."""

    __slots__ = ("error", "found_at", "identity", "is_known", "until")

    def __init__(self, identity: Identity | None = None, *, is_known: bool = False, error: str | None = None) -> None:
        self.identity, self.is_known, self.error = identity, is_known, error
        self.found_at = self.until = 0.0

    def result(self) -> Identity:
        """Return the identity, or raise `IdentifyError` as the look-up has failed."""
        if self.identity is None:
            raise IdentifyError(self.error or "")
        return self.identity


def _address_of(connection: HTTPConnection) -> str:
    """Return all that tells a client's address."""
    client = connection.scope.get("client") or ("",)
    forwarded = [value for name in ("x-forwarded-for", "forwarded") for value in connection.headers.getlist(name)]
    return "\n".join([str(client[0]), *forwarded]) or "\n"
