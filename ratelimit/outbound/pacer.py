"""A pacer: evenly spaced starts for outbound work, first come first served."""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

from ratelimit._utils.background_loop import run_blocking
from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit._utils.tasks import BackgroundTasks
from ratelimit._utils.validation import check_max_wait
from ratelimit.clock import Clock, system_clock
from ratelimit.enforcement.circuit_breaker import CircuitBreaker
from ratelimit.enforcement.decision import Decision
from ratelimit.errors import ConfigurationError, LimitExceeded, StoreError, StoreUnavailable
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectivePace
from ratelimit.model.kinds import NEVER
from ratelimit.model.rate import Rate
from ratelimit.outbound.reservation_queue import Reservation, ReservationQueue
from ratelimit.resolver.keys import escape
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.urls import open_store

logger = logging.getLogger("ratelimit")

_RETRY_PAUSE_S: Final = 0.2
"""Seconds between two attempts while the store is unavailable."""

_WAIT_MARGIN_S: Final = 0.05
"""Seconds by which a reservation within `max_wait` may start later than it was promised."""

_MAX_PER_SECOND: Final = 100_000
"""Reservations in a second: no program keeps intervals shorter than 10 µs."""

_UNBOUNDED_S: Final = 10.0**9
"""A bound in seconds from which on there is none."""

_MAX_LIMITS: Final = 64
"""Bounds on the wait for which the effective limit is kept."""

_CLOSED: Final = "the pacer was closed [RL404]"


class Pacer:
    """Space calls evenly, first come first served, over all processes that share the store.

    `Pacer("100/second", per="subscription")` lets `await pacer.wait("sub_1")` return every 10 ms for each subscription.
    `per` names what each pace belongs to (empty: one pace for all), and its values are given in that order. `name` tells
    pacers on one store apart. `store` is a URL or a store; starts follow its clock, to the microsecond, and a
    reservation is one round trip. `max_wait` bounds waits, in seconds (`None`: no bound). A `Throttle` lets calls go at
    once until a window is full instead.

    Any span of k intervals sees at most k + 1 starts (for intervals below 10 ms, as many more as fit into 5 ms). A
    reservation that is missed by more than half an interval, because the machine was busy, is lost, and every caller in
    this process takes the next one. A store that has lost its memory starts again from zero, in addition to the
    reservations that other processes still hold. While the store is unavailable every caller waits. Nothing is
    connected before the first reservation. Close the pacer, or use it as an async context manager. A rate of zero or of
    more than 100,000 a second, a wrong URL and a wrong bound raise `ConfigurationError`.
    """

    def __init__(
        self,
        rate: Rate | str,
        *,
        per: str | Sequence[str] = (),
        name: str = "pacer",
        store: Store | str = "memory://",
        max_wait: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.rate = _checked_rate(rate)
        self.per = _checked_dimensions(per)
        self.name, self.max_wait = name, check_max_wait(max_wait)
        self.missed = 0
        """Reservations that were lost so far because this process was too busy to use them."""
        self._clock = clock or system_clock
        self.store = open_store(store, clock=clock) if isinstance(store, str) else store
        self._limits: BoundedCache[int, EffectivePace] = BoundedCache(_MAX_LIMITS)
        # A queue lives as long as a caller waits in it.
        self._queues: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], ReservationQueue]
        self._queues = WeakValueDictionary()
        self._cancellations, self._replacements = BackgroundTasks(), BackgroundTasks()
        self._breaker = CircuitBreaker(
            self.store,
            unavailable=f"pacer {name!r} holds every caller",
            available=f"pacer {name!r} goes on",
            threshold=1,
        )
        self._closings = 0

    @property
    def interval(self) -> float:
        """The seconds between two starts."""
        return self.rate.period / self.rate.limit

    async def wait(self, *key: object, max_wait: float | None = None) -> float:
        """Return when this caller may start, and how many seconds that took.

        Where it would take longer than `max_wait` seconds (default: the pacer's), nothing is reserved and `LimitExceeded`
        is raised at once; and later, if missed reservations make it longer than that and an interval more. A store that
        is unavailable for as long raises its `StoreError`. When a caller is cancelled, all callers behind it in this
        process move up, and the last reservation is cancelled.
        """
        loop, queue = asyncio.get_running_loop(), self.queue(*key)
        began, bound = loop.time(), self._bound(max_wait)
        start = await self._reserve(queue, key, bound)
        try:
            async with asyncio.timeout_at(None if bound is None else began + bound + self.interval + _WAIT_MARGIN_S):
                await queue.wait(start)
        except TimeoutError:
            raise self._exceeded(queue.lateness(start), bound, 0) from None
        return loop.time() - began

    async def reserve(self, *key: object, max_wait: float | None = None) -> Reservation:
        """Take the next reservation, to be waited for or cancelled by the caller; raises what `wait` raises at once."""
        queue = self.queue(*key)
        return Reservation(queue, await self._reserve(queue, key, self._bound(max_wait)))

    def wait_sync(self, *key: object, max_wait: float | None = None) -> float:
        """Do as `wait`, in a thread without an event loop."""
        return run_blocking(self.wait(*key, max_wait=max_wait))

    async def aclose(self) -> None:
        """Close the store in this event loop; may be called twice. Callers that wait here get `StoreUnavailable`."""
        loop = asyncio.get_running_loop()
        self._closings += 1
        for (where, _), queue in list(self._queues.items()):
            if where is loop:
                queue.close(StoreUnavailable(_CLOSED))
        await self._replacements.cancel()
        await self.drain()
        await self.store.resolve_in_doubt()
        await self.store.aclose()

    def close(self) -> None:
        """Do as `aclose`, for users of `wait_sync`."""
        run_blocking(self.aclose())

    async def drain(self) -> None:
        """Wait until the cancellations of reservations that this event loop has started are done."""
        await self._cancellations.drain()

    def queue(self, *key: object) -> ReservationQueue:
        """Return the queue of a key in the running event loop."""
        place = asyncio.get_running_loop(), self._key(key)
        queue = self._queues.get(place)
        if queue is None:
            charge = self._charge(key, math.inf)
            queue = self._queues[place] = ReservationQueue(
                self.interval,
                lambda queue, is_needed: self._missed(queue, key, is_needed=is_needed),
                lambda start: self._cancellations.spawn(self._cancel(charge, start)),
            )
        return queue

    def __repr__(self) -> str:
        return f"<Pacer {self.name} {self.rate} per {', '.join(self.per) or 'nothing'}, {self.store!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _bound(self, max_wait: float | None) -> float | None:
        return self.max_wait if max_wait is None else check_max_wait(max_wait)

    async def _reserve(self, queue: ReservationQueue, key: Sequence[object], bound: float | None) -> int:
        """Return the start of a new reservation; while the store is unavailable, try again until the bound."""
        loop, closings = asyncio.get_running_loop(), self._closings
        until = math.inf if bound is None else loop.time() + bound
        while True:
            asked, charge = loop.time(), self._charge(key, until - loop.time())
            try:
                reply = await self.store.submit(StoreRequest([charge], Operation.CHARGE, 0, 0, self._cancel_orphan))
            except StoreError as error:
                self._breaker.record_failure(error)
                if loop.time() + _RETRY_PAUSE_S > until:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S)
                if closings != self._closings:
                    raise StoreUnavailable(_CLOSED) from error
                await self._settle()
            else:
                self._breaker.record_success()
                return self._reserved(queue, reply, asked, bound)

    def _reserved(self, queue: ReservationQueue, reply: StoreReply, asked: float, bound: float | None) -> int:
        start, wait_us, over_ms = reply.readings[0]
        if over_ms > 0:
            raise self._exceeded(-wait_us / 1e6, bound, over_ms / 1000)
        # The reply was read at once, but this task may run a little later.
        ago = (self._clock() - reply.now) / 1e6
        received = asyncio.get_running_loop().time() - (ago if 0 < ago < 1 else 0.0)
        queue.observe_clock(start, wait_us, asked, received)
        return start

    def _exceeded(self, lateness: float, bound: float | None, retry_after: float) -> LimitExceeded:
        what = f"starts in {-lateness:g} s" if lateness < 0 else "was missed"
        message = f"the next reservation of {self.name!r} {what}, more than max_wait={bound:g} [RL705]"
        return LimitExceeded(message, Decision(False, 429, retry_after))

    async def _settle(self) -> None:
        """Cancel reservations without a caller before another one is made: later they would be lost in the middle."""
        with suppress(StoreError):
            await self.store.resolve_in_doubt()
        cancelling = self._cancellations.of_this_loop()
        if cancelling:
            await asyncio.wait(cancelling)

    def _charge(self, key: Sequence[object], bound: float) -> Charge:
        return Charge(self._limit(bound), self._key(key))

    def _key(self, key: Sequence[object]) -> str:
        if len(key) != len(self.per):
            raise ConfigurationError(
                f"key: per is {', '.join(self.per) or 'empty'}, and {len(key)} values are given [RL703]"
            )
        values = ["" if each is None else escape(each) for each in key]
        if "" in values:
            raise ConfigurationError(f"key: the value of {self.per[values.index('')]} is missing [RL703]")
        return f"rl:{{{values[0] if values else '*'}}}:{escape(self.name)}:pace:{':'.join(values) or '*'}"

    def _limit(self, bound: float) -> EffectivePace:
        max_wait_ms = NEVER if bound > _UNBOUNDED_S else max(0, math.ceil(bound * 1000))
        limit = self._limits.get(max_wait_ms)
        if limit is None:
            limit = self._limits[max_wait_ms] = EffectivePace(
                policy=self.name,
                scope="global",
                limit=self.rate.limit,
                window=self.rate.period,
                max_wait_ms=max_wait_ms,
            )
        return limit

    def _cancel_orphan(self, request: StoreRequest, reply: StoreReply | None) -> None:
        """Cancel a reservation whose caller was cancelled before the reply arrived."""
        if reply is not None and not request.is_refused(reply):
            (charge,), ((start, _, _),) = request.charges, reply.readings
            self._cancellations.spawn(self._cancel(charge, start))

    def _missed(self, queue: ReservationQueue, key: Sequence[object], *, is_needed: bool) -> None:
        self.missed += 1
        if is_needed:
            self._replacements.spawn(self._replace(queue, key))

    async def _replace(self, queue: ReservationQueue, key: Sequence[object]) -> None:
        """Make a reservation for a caller whose reservation was missed."""
        try:
            start = await self._reserve(queue, key, None)
        except Exception as error:  # noqa: BLE001 - handed to the waiting caller
            queue.fail(error)
        except BaseException:
            queue.fail(StoreUnavailable(_CLOSED))
            raise
        else:
            queue.add(start)

    async def _cancel(self, charge: Charge, start: int) -> None:
        try:
            await self.store.submit(StoreRequest([charge._replace(cost=-1)], Operation.ADJUST, start))
        except StoreError as error:
            # If it was sent, the store completes it later; otherwise the reservation is lost, and no caller is too fast.
            logger.debug("a reservation of pacer %r is not cancelled yet: %s", self.name, error)


def _checked_dimensions(per: str | Sequence[str]) -> tuple[str, ...]:
    names: tuple[object, ...] = (per,) if isinstance(per, str) else tuple(per)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(f"per: must be names, each once, not {per!r:.100} [RL701]")
    return tuple(map(str, names))


def _checked_rate(rate: Rate | str) -> Rate:
    rate = rate if isinstance(rate, Rate) else Rate.parse(rate)
    if not 0 < rate.limit <= rate.period * _MAX_PER_SECOND:
        raise ConfigurationError(
            f"rate: a pace must be above zero and at most {_MAX_PER_SECOND}/second, not {rate} [RL701]"
        )
    return rate
