"""A throttle: who asks waits until a rate has room."""

import asyncio
import math
from types import TracebackType
from typing import Final, Self

from ratelimit.clock import Clock
from ratelimit.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded
from ratelimit.identity import Identity
from ratelimit.limiter import Limiter
from ratelimit.policy import Limit
from ratelimit.rate import Rate
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import Store
from ratelimit.waiting import check_wait, in_background

_ANYBODY: Final = Identity()


class Throttle:
    """Let so much through in any window, and hold the rest until there is room, in the order in which it came.

    `async with throttle:` (or `with throttle:` in a thread without an event loop) waits and goes on; so do `wait` and
    `wait_sync`. The window slides as a server's does: `Throttle("10/minute")` lets ten go at once and the next when the
    first is a minute old. `store` is an address or a store: with `memory://` it counts in this process, with Redis
    together with all who use the same `name` there; among several processes who asks first when there is room goes
    first. While a store is away each process takes its share. `burst` is a fraction on top, as of a `Limit`. `max_wait` bounds waits,
    in seconds (`None`: as long as it takes). Wrong values raise `ConfigurationError` or pydantic's `ValidationError`.
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
            raise ConfigurationError(f"store: must be an address or a store, not {store!r:.50}")
        self.rate = rate if isinstance(rate, Rate) else Rate.parse(rate)
        self.name, self.max_wait = name, check_wait(max_wait)
        address = {"store": store} if isinstance(store, str) else {}
        settings = RateLimitSettings(limits=[Limit(name=name, rate=self.rate, burst=burst)], **address)
        self._limiter = Limiter(settings, None if isinstance(store, str) else store, clock)
        self._most = self.rate.limit + math.floor(self.rate.limit * burst)
        self._lines: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    async def wait(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Return when `cost` units have room, and say how many seconds that took.

        Where it takes longer than `max_wait` seconds (default: the throttle's), `LimitExceeded` is raised as soon as that
        is known, and nothing is counted. A cost that never has room raises `ConfigurationError`.
        """
        asked: object = cost
        if isinstance(asked, int) and asked > self._most:
            raise ConfigurationError(f"cost: {cost} never have room in {self.rate}")
        loop = asyncio.get_running_loop()
        began, bound = loop.time(), self.max_wait if max_wait is None else check_wait(max_wait)
        until = None if bound is None else began + bound
        line = self._line(loop)
        try:
            async with asyncio.timeout_at(until):
                await line.acquire()
        except TimeoutError:
            raise _exceeded(self.name, await self._limiter.peek(_ANYBODY), bound) from None
        # One of this process asks at a time, and the others wait behind: a lock lets them in as they came.
        try:
            while not (decision := await self._limiter.check(_ANYBODY, cost=cost)).allowed:
                if until is not None and loop.time() + decision.retry_after > until:
                    raise _exceeded(self.name, decision, bound)
                await asyncio.sleep(decision.retry_after)
        finally:
            line.release()
        return loop.time() - began

    def _line(self, loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
        if loop not in self._lines:
            # A lock holds its loop, and a loop that has ended is of no use.
            self._lines = {each: lock for each, lock in list(self._lines.items()) if not each.is_closed()}
            self._lines[loop] = asyncio.Lock()
        return self._lines[loop]

    def wait_sync(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return in_background(self.wait(cost=cost, max_wait=max_wait))

    def __repr__(self) -> str:
        return f"<Throttle {self.name} {self.rate}>"

    async def aclose(self) -> None:
        """Close what is open in this event loop; may be called twice."""
        await self._limiter.aclose()

    def close(self) -> None:
        """Do as `aclose`, for those who use `wait_sync` or `with`."""
        in_background(self.aclose())

    async def __aenter__(self) -> Self:
        await self.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go on: what was let through is counted, however it ends."""

    def __enter__(self) -> Self:
        self.wait_sync()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go on."""


def _exceeded(name: str, decision: Decision, bound: float | None) -> LimitExceeded:
    more = f"; there is in {decision.retry_after:g} s" if decision.retry_after else ""
    return LimitExceeded(f"{name!r} has no room within max_wait={bound:g} s{more}", decision)
