"""A throttle: the caller waits until a rate has room."""

import asyncio
import math
from types import TracebackType
from typing import Final, Self

from ratelimit._utils.background_loop import run_blocking
from ratelimit._utils.per_loop import PerLoop
from ratelimit._utils.validation import check_max_wait, is_int
from ratelimit.clock import Clock
from ratelimit.config.policies import Limit
from ratelimit.config.settings import RateLimitSettings
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.model.rate import Rate
from ratelimit.stores.base import Store

_ANY_CALLER: Final = Identity()


class Throttle:
    """Let a rate of calls through in any window, and hold the others until there is room, first come first served.

    `async with throttle:` (or `with throttle:` in a thread without an event loop) waits and goes on; so do `wait` and
    `wait_sync`. The window slides as a server's does: `Throttle("10/minute")` lets ten calls go at once, and the next one
    when the first is a minute old. A `Pacer` spaces calls evenly instead.

    `store` is a URL or a store: with `memory://` this process counts alone, with Redis together with all that use the
    same `name` there; among several processes, the one that asks first when there is room goes first. While the store
    is unavailable each process takes its share. `burst` is a fraction on top, as of a `Limit`. `max_wait` bounds waits,
    in seconds (`None`: no bound). Wrong values raise `ConfigurationError` or pydantic's `ValidationError`.
    """

    def __init__(
        self,
        rate: Rate | str,
        *,
        name: str = "throttle",
        store: Store | str = "memory://",
        burst: float = 0.0,
        max_wait: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(store, (str, Store)):
            raise ConfigurationError(f"store: must be a URL or a store, not {store!r:.50}")
        self.rate = rate if isinstance(rate, Rate) else Rate.parse(rate)
        self.name, self.max_wait = name, check_max_wait(max_wait)
        url = {"store": store} if isinstance(store, str) else {}
        settings = RateLimitSettings(limits=[Limit(name=name, rate=self.rate, burst=burst)], **url)
        self._limiter = Limiter(settings, None if isinstance(store, str) else store, clock)
        self._max_cost = self.rate.limit + math.floor(self.rate.limit * burst)
        self.queues: PerLoop[asyncio.Lock] = PerLoop(asyncio.Lock)
        """The queue of each event loop: one caller of this process asks at a time, the others wait for the lock."""

    async def wait(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Return when `cost` units have room, and how many seconds that took.

        Where it takes longer than `max_wait` seconds (default: the throttle's), `LimitExceeded` is raised as soon as that
        is known, and nothing is counted. A cost that never has room raises `ConfigurationError`.
        """
        if is_int(cost) and cost > self._max_cost:
            raise ConfigurationError(f"cost: {cost} units never have room in {self.rate}")
        loop = asyncio.get_running_loop()
        began, bound = loop.time(), self.max_wait if max_wait is None else check_max_wait(max_wait)
        until = None if bound is None else began + bound
        queue = self.queues.get()
        try:
            async with asyncio.timeout_at(until):
                await queue.acquire()  # A lock lets the waiting callers in as they came.
        except TimeoutError:
            raise _exceeded(self.name, await self._limiter.peek(_ANY_CALLER), bound) from None
        try:
            while not (decision := await self._limiter.check(_ANY_CALLER, cost=cost)).allowed:
                if until is not None and loop.time() + decision.retry_after > until:
                    raise _exceeded(self.name, decision, bound)
                await asyncio.sleep(decision.retry_after)
        finally:
            queue.release()
        return loop.time() - began

    def wait_sync(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return run_blocking(self.wait(cost=cost, max_wait=max_wait))

    def __repr__(self) -> str:
        return f"<Throttle {self.name} {self.rate}>"

    async def aclose(self) -> None:
        """Close what is open in this event loop; may be called twice."""
        await self._limiter.aclose()

    def close(self) -> None:
        """Do as `aclose`, for users of `wait_sync` or `with`."""
        run_blocking(self.aclose())

    async def __aenter__(self) -> Self:
        await self.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: the call is counted, however the block ends."""

    def __enter__(self) -> Self:
        self.wait_sync()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: the call is counted, however the block ends."""


def _exceeded(name: str, decision: Decision, bound: float | None) -> LimitExceeded:
    retry = f"; it has in {decision.retry_after:g} s" if decision.retry_after else ""
    return LimitExceeded(f"{name!r} has no room within max_wait={bound:g} s{retry}", decision)
