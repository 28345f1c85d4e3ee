"""Identity cache: who has sent a credential is looked up once for many requests."""

import asyncio
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

NO_IDENTIFY: Final = "IdentityCache has no identify: write IdentityCache(ttl=30)(identify) [RL207]"

_MAX_SIZE: Final = 10_000_000
_HEADERS: Final = ("authorization", "x-api-key", "cookie")
_ADDRESS_HEADERS: Final = (
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fly-client-ip",
    "fastly-client-ip",
    "x-azure-clientip",
)
"""Headers in which proxies name the client."""


def sent_credentials(connection: HTTPConnection) -> str:
    """Return the `Authorization`, `X-API-Key` and `Cookie` fields of a request, of each as many as there are."""
    return "\n".join(f"{name}:{value}" for name in _HEADERS for value in connection.headers.getlist(name))


class IdentityCache:
    """Remember for `ttl` seconds what an `identify` finds: `identify=IdentityCache(ttl=30)(identify)`.

    Identities are cached by the hash of the credential that was sent and of the client's address, also as proxies name it.
    At most `max` are held; the one that was used longest ago goes first. Requests that ask for the same one at the same
    moment share a look-up. One that found no caller, or failed, is remembered for a second. While a caller is refused, its
    identity stays cached, up to ten times `ttl`.

    `credential` returns what `identify` reads of a request: an `identify` that reads more than `Authorization`, `X-API-Key`,
    `Cookie` and the address (such as a header `X-Tenant`, or the path) has to say so here, or callers are mixed up. Requests without a credential are not cached. What
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
            raise ConfigurationError(f"ttl: must be seconds above 0, got {ttl!r:.50} [RL208]")
        if not is_int_between(max, 1, _MAX_SIZE):
            raise ConfigurationError(f"max: must be an integer between 1 and {_MAX_SIZE}, got {max!r:.50} [RL208]")
        if not callable(credential):
            raise ConfigurationError("credential: must be a function of the connection that returns text [RL208]")
        self._identify, self._ttl, self._max, self._credential, self._clock = identify, ttl, max, credential, clock
        self._cache: LruCache[bytes, _Found] = LruCache(max)
        self._pending: dict[tuple[bytes, asyncio.AbstractEventLoop], asyncio.Future[Identity]] = {}

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
            raise ConfigurationError(NO_IDENTIFY)
        key = self._key(subject)
        known = None if key is None else self._cache.get(key)
        if known is not None and self._clock() < known.until and key is not None:
            self._cache.move_to_end(key)
            return known.result()
        return self._look_up(self._identify, subject, key)

    @property
    def has_identify(self) -> bool:
        """Whether there is something to cache."""
        return self._identify is not None

    def keep(self, connection: HTTPConnection, seconds: float) -> None:
        """Keep the identity of a caller that is refused for so many seconds more; an unknown one is looked up again."""
        key = self._key(connection)
        known = None if key is None else self._cache.get(key)
        if known is not None and known.is_known:
            latest = known.found_at + _MAX_AGE_IN_TTLS * self._ttl
            known.until = max(known.until, min(self._clock() + min(seconds, self._ttl), latest))

    def _look_up(
        self, identify: Identify, connection: HTTPConnection, key: bytes | None
    ) -> Identity | Awaitable[Identity]:
        try:
            found = identify(connection)
        except Exception as error:
            self._remember(key, _Found(error=place_of(error)))
            raise
        if not inspect.isawaitable(found):
            return self._found(found, key)
        return self._later(found, key) if key is None else self._shared(found, key)

    async def _shared(self, found: Awaitable[Identity | None], key: bytes) -> Identity:
        """Wait for a look-up with the other requests that need it; it goes on if this one is cancelled."""
        place = key, asyncio.get_running_loop()
        pending = self._pending.get(place)
        if pending is None:
            pending = self._pending[place] = asyncio.ensure_future(self._later(found, key))
            pending.add_done_callback(lambda ended: self._ended(place, ended))
        elif inspect.iscoroutine(found):
            found.close()
        return await asyncio.shield(pending)

    def _ended(self, place: tuple[bytes, asyncio.AbstractEventLoop], ended: "asyncio.Future[Identity]") -> None:
        self._pending.pop(place, None)
        if not ended.cancelled():
            ended.exception()  # Else it would be reported where all that waited were cancelled.

    async def _later(self, found: Awaitable[Identity | None], key: bytes | None) -> Identity:
        try:
            identity = await found
        except Exception as error:
            self._remember(key, _Found(error=place_of(error)))
            raise
        return self._found(identity, key)

    def _found(self, found: Identity | None, key: bytes | None) -> Identity:
        identity = checked_identity(found)
        self._remember(key, _Found(identity, is_known=found is not None))
        return identity

    def _remember(self, key: bytes | None, found: "_Found") -> None:
        if key is not None:
            found.found_at = self._clock()
            found.until = found.found_at + (self._ttl if found.is_known else min(_FAILURE_TTL_S, self._ttl))
            self._cache.put(key, found)

    def _key(self, connection: HTTPConnection) -> bytes | None:
        """Return the entry of a request's credential and address; `None` where it has no credential."""
        sent = self._credential(connection)
        if not sent:
            return None
        text = f"{_address_of(connection)}\n\n{sent}"
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


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
    """Return all that may tell a client's address."""
    client = connection.scope.get("client") or ("",)
    named = [f"{name}:{value}" for name in _ADDRESS_HEADERS for value in connection.headers.getlist(name)]
    return "\n".join([str(client[0]), *named])
