"""The limiter for code without an event loop: threads, Celery, Flask, Django, scripts."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ratelimit._utils.background_loop import run_blocking
from ratelimit.clock import Clock
from ratelimit.config.settings import RateLimitSettings
from ratelimit.controls.blocks import Blocks
from ratelimit.controls.overrides import Overrides
from ratelimit.enforcement.decision import Decision
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import UNMATCHED
from ratelimit.stores.base import Store

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Limiter, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate["BlockingLimiter", P], R]:
    """Return a method that runs one of `Limiter`'s in the background loop, and waits for its result."""

    @wraps(method)
    def call(self: "BlockingLimiter", /, *args: P.args, **options: P.kwargs) -> R:
        return run_blocking(method(self.limiter, *args, **options))

    return call


class BlockingLimiter:
    """Do as `Limiter`, without `await`: each method waits for its result, and `slot` is for a `with` block.

    May be used by any number of threads. All blocking limiters of a process share one event loop in a thread of its own;
    a forked child starts another one. Parameters, results and errors are those of `Limiter`; in a thread whose event loop
    runs, a call raises `ConfigurationError`, since it would block that loop. `limiter` is the limiter itself, for `await`
    and for `overrides.set` by `run`.
    """

    def __init__(self, settings: RateLimitSettings, store: Store | None = None, clock: Clock | None = None) -> None:
        self.limiter = Limiter(settings, store, clock)

    check = _blocking(Limiter.check)
    peek = _blocking(Limiter.peek)
    limits = _blocking(Limiter.limits)
    consume = _blocking(Limiter.consume)
    release = _blocking(Limiter.release)
    finish = _blocking(Limiter.finish)
    usage = _blocking(Limiter.usage)
    reset = _blocking(Limiter.reset)
    block = _blocking(Limiter.block)
    start = _blocking(Limiter.start)
    close = _blocking(Limiter.aclose)

    @property
    def blocks(self) -> Blocks:
        """The blocks, whose methods are coroutines for `run`."""
        return self.limiter.blocks

    @property
    def overrides(self) -> Overrides:
        """The overrides, whose methods are coroutines for `run`."""
        return self.limiter.overrides

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine where this limiter's connections live, and return its result."""
        return run_blocking(work)

    @contextmanager
    def slot(
        self, policy: str, identity: Identity, *, method: str = "GET", endpoint: str = UNMATCHED
    ) -> Iterator[Decision]:
        """Hold a permit of one `Concurrency` for a `with` block, renewed until the block ends, as `Limiter.slot`."""
        held = self.limiter.slot(policy, identity, method=method, endpoint=endpoint)
        decision = run_blocking(held.__aenter__())
        try:
            yield decision
        finally:
            run_blocking(held.__aexit__(None, None, None))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
