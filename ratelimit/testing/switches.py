"""Limits switched off, or on a clock that stands still, wherever the app makes its limiters."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from ratelimit.clock import Clock
from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import MemoryStore, Store
from ratelimit.testing.clock import ManualClock


@contextmanager
def limits_off() -> Iterator[None]:
    """Let every limiter of this process admit everything, without its store: nothing is counted, no header is sent."""

    async def admit(*_: Any, **__: Any) -> Decision:
        return Decision(True)

    async def nothing(*_: Any, **__: Any) -> tuple[()]:
        return ()

    with ExitStack() as stack:
        for name, instead in (("decide", admit), ("release", admit), ("usage", nothing), ("start", nothing)):
            stack.enter_context(patch.object(Limiter, name, instead))
        yield


@contextmanager
def frozen_limits(*apps: Any, clock: ManualClock | None = None) -> Iterator[ManualClock]:
    """Let every limiter that is made meanwhile count afresh, in memory, by a clock that stands still; yields the clock.

    An app's middleware is made with its first request. `apps` that may have had one are made to build it anew, now
    and once more afterwards. What is no app, and one whose middleware was handed a limiter that is made already, raises
    `ConfigurationError`.
    """
    clock = clock or ManualClock()
    for app in apps:
        _check(app)
    make = Limiter.__init__

    def made(self: Limiter, settings: RateLimitSettings, store: Store | None = None, own: Clock | None = None) -> None:
        make(self, settings, MemoryStore(clock=clock) if store is None else store, own or clock)

    def make_anew() -> None:
        for app in apps:
            app.middleware_stack = None

    with patch.object(Limiter, "__init__", made):
        make_anew()
        try:
            yield clock
        finally:
            make_anew()


def _check(app: Any) -> None:
    if not hasattr(app, "middleware_stack"):
        raise ConfigurationError(f"frozen_limits takes Starlette or FastAPI apps, not {app!r:.100}")
    if any(getattr(each, "kwargs", {}).get("limiter") is not None for each in app.user_middleware):
        raise ConfigurationError(
            "frozen_limits: the limiter of this app is made already; make it of `make_limiter`, or give settings instead"
        )
