"""Disables all limits, or freezes their time, wherever the app makes its limiters."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from ratelimit.clock import Clock
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.enforcement.listeners import Listener
from ratelimit.errors import ConfigurationError
from ratelimit.limiter import Limiter
from ratelimit.stores.base import Store
from ratelimit.stores.memory import MemoryStore
from ratelimit.testing.clock import ManualClock


@contextmanager
def disable_limits() -> Iterator[None]:
    """Let every limiter of this process admit everything: it asks no store, counts nothing and adds no headers."""

    async def admit(*_: Any, **__: Any) -> Decision:
        return Decision(True)

    def admit_now(*_: Any, **__: Any) -> Decision:
        return Decision(True)

    async def do_nothing(*_: Any, **__: Any) -> tuple[()]:
        return ()

    replacements = (
        (Enforcer, "decide", admit),
        (Limiter, "decide_now", admit_now),
        (Limiter, "release", admit),
        (Limiter, "usage", do_nothing),
        (Limiter, "start", do_nothing),
    )
    with ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.enter_context(patch.object(owner, name, replacement))
        yield


@contextmanager
def freeze_limits(*apps: Any, clock: ManualClock | None = None) -> Iterator[ManualClock]:
    """Let every limiter that is made in the block start from zero, in memory, on a `ManualClock`, which is yielded.

    An app makes its middleware with its first request. `apps` that may have had one make it again, at the start and
    after the end of the block. An object that is no app, or an app whose middleware was given a finished limiter, raises
    `ConfigurationError`.
    """
    frozen = clock or ManualClock()
    for app in apps:
        _check_app(app)
    make = Limiter.__init__

    def make_frozen(
        self: Limiter,
        settings: RateLimitSettings,
        store: Store | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        make(self, settings, MemoryStore(clock=frozen) if store is None else store, clock or frozen, listeners)

    with patch.object(Limiter, "__init__", make_frozen):
        _reset_middleware(apps)
        try:
            yield frozen
        finally:
            _reset_middleware(apps)


def _reset_middleware(apps: tuple[Any, ...]) -> None:
    for app in apps:
        app.middleware_stack = None


def _check_app(app: Any) -> None:
    if not hasattr(app, "middleware_stack"):
        raise ConfigurationError(f"freeze_limits takes Starlette or FastAPI apps, not {app!r:.100} [RL316]")
    if any(getattr(each, "kwargs", {}).get("limiter") is not None for each in app.user_middleware):
        raise ConfigurationError(
            "freeze_limits: this app was given a finished limiter: make that with `make_limiter`, or give settings instead [RL316]"
        )
