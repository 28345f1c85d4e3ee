"""Authorization of operators: the app's own function says who may see and change limits."""

import inspect
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ratelimit.errors import ConfigurationError

Authorize = Callable[[Request], bool | str | Awaitable[bool | str | None] | None]
"""Says whether a request is an operator's: true or the operator's name, sync or async; it may raise `HTTPException`."""


def check_authorize(authorize: object, name: str = "authorize") -> None:
    """Raise `ConfigurationError` for what cannot be called."""
    if not callable(authorize):
        raise ConfigurationError(f"{name}: must be a function of the request, got {authorize!r:.50} [RL207]")


async def operator_of(authorize: Authorize, request: Request) -> str | None:
    """Return the operator's name, if `authorize` tells it; raises `HTTPException` 403 where it says no."""
    found = authorize(request)
    allowed = await found if inspect.isawaitable(found) else found
    if not allowed:
        raise HTTPException(403)
    if not isinstance(allowed, (str, bool)):
        raise TypeError(f"authorize must return true, a name, or nothing, not {type(allowed).__name__}")
    return allowed if isinstance(allowed, str) else None
