"""A throttle: the caller waits until a rate has room."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from ratelimit._utils.background_loop import run_blocking
from ratelimit._utils.per_loop import PerLoop
from ratelimit._utils.validation import check_max_wait, is_int, is_int_between
from ratelimit.clock import Clock
from ratelimit.config.policies import MAX_CONCURRENCY, Concurrency, Limit
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

    With `concurrency`, at most so many blocks run at once, with or without a rate; the others wait until a block ends.
    `wait` and `wait_sync` have no end, and wait for the rate alone.

    `store` is a URL or a store: with `memory://` this process counts alone, with Redis together with all that use the
    same `name` there; among several processes, the one that asks first when there is room goes first, and each asks once
    a second for a block that ended in another one. The blocks of a killed process end after a minute. While the store is
    unavailable each process takes its share. `burst` is a fraction on top, as of a `Limit`. `max_wait` bounds waits, in
    seconds (`None`: no bound). Wrong values raise `ConfigurationError` or pydantic's `ValidationError`.
    """

    def __init__(
        self,
        rate: Rate | str | None = None,
        *,
        concurrency: int | None = None,
        name: str = "throttle",
        store: Store | str = "memory://",
        burst: float = 0.0,
        max_wait: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(store, (str, Store)):
            raise ConfigurationError(f"store: must be a URL or a store, not {store!r:.50} [RL120]")
        self.rate = rate if rate is None or isinstance(rate, Rate) else Rate.parse(rate)
        self.concurrency = _checked_concurrency(concurrency, self.rate)
        self.name, self.max_wait = name, check_max_wait(max_wait)
        self._limiter = Limiter(self._settings(store, burst), None if isinstance(store, str) else store, clock)
        self._max_cost = 0 if self.rate is None else self.rate.limit + math.floor(self.rate.limit * burst)
        self.queues: PerLoop[asyncio.Lock] = PerLoop(asyncio.Lock)
        """The queue of each event loop: one caller of this process asks at a time, the others wait for the lock."""
        self._held: PerLoop[list[Decision]] = PerLoop(list)
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Return when `cost` units have room, and how many seconds that took.

        Where it takes longer than `max_wait` seconds (default: the throttle's), `LimitExceeded` is raised as soon as that
        is known, and nothing is counted. A cost that never has room, or a throttle without a rate, raises
        `ConfigurationError`.
        """
        if self.rate is None:
            raise ConfigurationError(
                "rate: this throttle has none to wait for; `async with` bounds its concurrency [RL702]"
            )
        if is_int(cost) and cost > self._max_cost:
            raise ConfigurationError(f"cost: {cost} units never have room in {self.rate} [RL702]")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._admit(cost, max_wait, None if self.concurrency is None else [self.name])
        return loop.time() - began

    def wait_sync(self, *, cost: int = 1, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return run_blocking(self.wait(cost=cost, max_wait=max_wait))

    def _settings(self, store: Store | str, burst: float) -> RateLimitSettings:
        limits, permits = [], []
        if self.rate is not None:
            limits.append(Limit(name=self.name, rate=self.rate, burst=burst))
        if self.concurrency is not None:
            permits.append(Concurrency(name=f"{self.name}-concurrency", limit=self.concurrency))
        url = {"store": store} if isinstance(store, str) else {}
        return RateLimitSettings(limits=limits, concurrency=permits, **url)

    async def _admit(self, cost: int, max_wait: float | None, policies: Sequence[str] | None) -> Decision:
        """Return the decision that admits a caller by these policies (default: all), once it is made."""
        loop = asyncio.get_running_loop()
        bound = self.max_wait if max_wait is None else check_max_wait(max_wait)
        until = math.inf if bound is None else loop.time() + bound
        queue = self.queues.get()
        try:
            async with asyncio.timeout_at(None if bound is None else until):
                await queue.acquire()  # A lock lets the waiting callers in as they came.
        except TimeoutError:
            raise _exceeded(self.name, await self._limiter.peek(_ANY_CALLER), bound) from None
        try:
            while True:
                with self._next_release() as released:
                    decision = await self._limiter.check(_ANY_CALLER, cost=cost, policies=policies)
                    if decision.allowed:
                        return decision
                    if not await _room(decision, until, released):
                        raise _exceeded(self.name, decision, bound)
        finally:
            queue.release()

    async def _enter(self) -> None:
        """Wait for the rate and for a permit, and hold it."""
        decision = await self._admit(1, None, None)
        self._held.get().append(decision)
        for settlement in decision.settlements:
            settlement.start_renewal()

    async def _leave(self) -> None:
        """Release a permit, whichever this event loop holds: they are alike."""
        try:
            await self._limiter.finish(self._held.get().pop())
        finally:
            for future in list(self._waiting):
                with suppress(RuntimeError):  # Its event loop is closed.
                    future.get_loop().call_soon_threadsafe(_resolve, future)

    @contextmanager
    def _next_release(self) -> Iterator[asyncio.Future[None]]:
        """Yield a future that is resolved when a block ends, in any event loop of this process."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            yield future
        finally:
            self._waiting.discard(future)

    def __repr__(self) -> str:
        bounds = [str(self.rate)] if self.rate else []
        bounds += [f"{self.concurrency} at once"] if self.concurrency else []
        return f"<Throttle {self.name} {', '.join(bounds)}>"

    async def aclose(self) -> None:
        """Close what is open in this event loop; may be called twice."""
        await self._limiter.aclose()

    def close(self) -> None:
        """Do as `aclose`, for users of `wait_sync` or `with`."""
        run_blocking(self.aclose())

    async def __aenter__(self) -> Self:
        await (self.wait() if self.concurrency is None else self._enter())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the permit, where there is one; the call is counted, however the block ends."""
        if self.concurrency is not None:
            await self._leave()

    def __enter__(self) -> Self:
        run_blocking(self.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do as at the end of `async with`."""
        if self.concurrency is not None:
            run_blocking(self._leave())


async def _room(decision: Decision, until: float, released: asyncio.Future[None]) -> bool:
    """Wait until there may be room; say whether that is before `until` (event loop's clock)."""
    loop = asyncio.get_running_loop()
    known = [limit.retry_after for limit in decision.violated if limit.kind != "concurrency"]
    if known or not decision.violated:
        seconds = max(known, default=decision.retry_after)
        if loop.time() + seconds > until:
            return False
        await asyncio.sleep(seconds)
        return True
    # A permit may be released at any moment, here or in another process.
    with suppress(TimeoutError):
        async with asyncio.timeout_at(min(until, loop.time() + decision.retry_after)):
            await released
    return loop.time() < until


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked_concurrency(concurrency: object, rate: Rate | None) -> int | None:
    if concurrency is None:
        if rate is None:
            raise ConfigurationError("rate: a throttle needs a rate, a concurrency, or both [RL701]")
        return None
    if not is_int_between(concurrency, 1, MAX_CONCURRENCY):
        raise ConfigurationError(
            f"concurrency: must be an integer from 1 to {MAX_CONCURRENCY}, got {concurrency!r:.50} [RL701]"
        )
    return concurrency


def _exceeded(name: str, decision: Decision, bound: float | None) -> LimitExceeded:
    is_known = decision.retry_after and all(limit.kind != "concurrency" for limit in decision.violated)
    retry = f"; it has in {decision.retry_after:g} s" if is_known else ""
    return LimitExceeded(f"{name!r} has no room within max_wait={bound:g} s{retry} [RL705]", decision)
