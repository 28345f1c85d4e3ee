"""Tells who makes each request, whatever the app's own `identify` does."""

import inspect
import logging
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from starlette.requests import HTTPConnection
from starlette.types import Scope

from ratelimit._utils.sampling import SampledLog
from ratelimit.asgi.identify import Identify
from ratelimit.errors import MissingMiddlewareError
from ratelimit.model.identity import Identity

logger = logging.getLogger("ratelimit")

_UNKNOWN: Final = Identity()
_LOG_INTERVAL_S: Final = 10.0
"""Seconds at least between two lines in the log that each request may cause."""


IDENTIFY: Final = "ratelimit.identify"
"""The key of the scope under which an unlimited request finds how its caller would be identified."""

IDENTITY: Final = "identity"
"""The name in a request's state under which its identity is kept."""


class IdentifyError(Exception):
    """A caller could not be identified; the text holds no credential."""


class Callers:
    """Identifies callers by `identify`; where it fails, by `fallback`: their credential, unverified, and their address.

    `on_error` is called where it fails; `watch` sees each request and its identity, as long as it returns true.
    """

    def __init__(
        self,
        identify: Identify,
        fallback: Callable[[HTTPConnection], Identity],
        on_error: Callable[[str], None] | None = None,
        watch: Callable[[HTTPConnection, Identity], bool] | None = None,
    ) -> None:
        self._identify, self._on_error, self._watch = identify, on_error, watch
        self._keep: Callable[[HTTPConnection, float], None] | None = getattr(identify, "keep", None)
        self._fallback = fallback
        self._failed = SampledLog(logger, _LOG_INTERVAL_S)

    async def identify(self, scope: Scope) -> Identity:
        """Return who makes a request; never fails."""
        found = self.begin(scope)
        return found if isinstance(found, Identity) else await found

    def begin(self, scope: Scope) -> Identity | Coroutine[Any, Any, Identity]:
        """Return who makes a request, or what has to be awaited for that; neither fails."""
        connection = HTTPConnection(scope)
        try:
            found = self._identify(connection)
        except Exception as error:  # noqa: BLE001 - logged
            return self._failed_for(connection, error)
        return self._seen(connection, found) if isinstance(found, Identity) else self._finish(connection, found)

    async def _finish(self, connection: HTTPConnection, found: object) -> Identity:
        try:
            identity = checked_identity(await found if inspect.isawaitable(found) else found)
        except Exception as error:  # noqa: BLE001 - logged
            return self._failed_for(connection, error)
        return self._seen(connection, identity)

    def _failed_for(self, connection: HTTPConnection, error: Exception) -> Identity:
        # A limiter answers neither 401 nor 500: the app's own authentication decides.
        if self._on_error is not None:
            self._on_error("identify")
        self._failed.error(
            "identify failed (%s); requests are limited by their credential, unverified, and their address [RL501]",
            place_of(error),
        )
        return self._unverified(connection)

    def _seen(self, connection: HTTPConnection, identity: Identity) -> Identity:
        if self._watch is not None and not self._watch(connection, identity):
            self._watch = None
        return identity

    def _unverified(self, connection: HTTPConnection) -> Identity:
        """Return a caller by whatever credential it has sent: one of another kind than bearer and key counts too."""
        identity = self._fallback(connection)
        if identity.token is None and (sent := "\n".join(_other_credentials(connection))):
            identity = replace(identity, token=sent)
        return identity

    def refused(self, scope: Scope, seconds: float) -> None:
        """Take note that a caller is refused for so many seconds: a cached identity is not looked up again meanwhile."""
        if self._keep is not None:
            self._keep(HTTPConnection(scope), seconds)


def _other_credentials(connection: HTTPConnection) -> list[str]:
    return [value for name in ("authorization", "cookie") for value in connection.headers.getlist(name)]


async def identity_of(connection: HTTPConnection) -> Identity:
    """Return who makes a request that has passed the middleware, also at an endpoint that is not limited.

    Raises `ConfigurationError` where it has passed none.
    """
    found = connection.scope.get("state", {}).get(IDENTITY)
    if isinstance(found, Identity):
        return found
    identify = connection.scope.get(IDENTIFY)
    if identify is None:
        raise MissingMiddlewareError("identity_of: the request has not passed a RateLimitMiddleware [RL203]")
    identity: Identity = await identify(connection.scope)
    return identity


def place_of(error: Exception) -> str:
    """Return the kind of an error and where it was raised; its text may hold a credential."""
    if isinstance(error, IdentifyError):
        return str(error)
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    # That of the app which is nearest to us: the error itself may lie deep in a library.
    own = Path(__file__).parent
    file, line = next((each for each in frames if Path(each[0]).parent != own), frames[-1])
    return f"{type(error).__name__} in {Path(file).name}, line {line}"


def checked_identity(found: object) -> Identity:
    """Return what an `identify` returned, `None` as an unknown caller; raises `IdentifyError` for anything else."""
    if found is None:
        return _UNKNOWN
    if not isinstance(found, Identity):
        raise IdentifyError(f"identify must return an Identity or None, not {type(found).__name__}")
    return found
