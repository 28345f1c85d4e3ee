"""The reservations that one process holds of a pace, and the callers that wait for them."""

import asyncio
import math
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from ratelimit.errors import ConfigurationError

_MIN_TOLERANCE_S: Final = 0.005
"""Seconds after its start in which a reservation is always valid: event loops are no more exact than that."""

_CLOCK_STEP_S: Final = 0.01
"""Seconds by which a reservation may seem to start too early; more means that the store's clock stepped back."""

WaitingCaller = tuple[int, asyncio.Future[int]]
"""A waiting caller: its place in the order of arrival, and the future that gets its reservation."""


class ReservationQueue:
    """Hands reservations to waiting callers, first come first served; for one key, in one event loop.

    A reservation is its start by the store's clock, in microseconds. One that is missed by more than half an interval,
    because the machine was busy, is lost: every caller moves to the next one, and `on_missed(queue, is_needed)` is
    called; if another is needed, its outcome goes to `add` or `fail`. When a caller is cancelled, every caller behind it
    moves up, and `cancel` gets the last reservation.
    """

    def __init__(
        self,
        interval: float,
        on_missed: Callable[["ReservationQueue", bool], object],
        cancel: Callable[[int], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._usual_tolerance = self._tolerance = max(interval / 2, _MIN_TOLERANCE_S)
        self._min_gap = interval - self._usual_tolerance
        self._on_missed, self.cancel = on_missed, cancel
        self._reservations: list[int] = []
        self._waiting: list[WaitingCaller] = []
        self._arrivals, self._requested = count(), 0
        self._clock_offset, self._last_start = math.inf, -math.inf
        self._doubled = False
        self._timer: asyncio.TimerHandle | None = None

    def observe_clock(self, start: int, wait_us: int, asked: float, now: float) -> None:
        """Learn the offset of the store's clock: `start` was `wait_us` away at some time between `asked` and `now`."""
        offset = now - (start - wait_us) / 1e6
        # Replies take different times, and reservations are as even as the store says: the quickest reply tells best.
        best = min(offset, self._clock_offset)
        early = asked + wait_us / 1e6 - (start / 1e6 + best)
        self._clock_offset = offset if early > _CLOCK_STEP_S else best

    def lateness(self, start: int) -> float:
        """Return the seconds since a reservation has started, negative until it has, as far as is known now."""
        return self._loop.time() - start / 1e6 - self._clock_offset

    async def wait(self, start: int) -> None:
        """Add a reservation, and return when this caller's turn has come."""
        insort(self._reservations, start)
        arrival, future = next(self._arrivals), self._loop.create_future()
        insort(self._waiting, (arrival, future))
        self.dispatch()
        while (late := self.lateness(await self._handed_out(arrival, future))) > self._tolerance:
            # It was handed out in time, but this task ran too late: this caller keeps its place.
            future = self._loop.create_future()
            insort(self._waiting, (arrival, future))
            self._double_tolerance()
            self._miss()
        if late <= self._usual_tolerance:
            self._tolerance = self._usual_tolerance

    def add(self, start: int) -> None:
        """Add a reservation that was needed."""
        self._requested -= 1
        insort(self._reservations, start)
        self.dispatch()

    def fail(self, error: Exception) -> None:
        """Give up on a reservation that was needed: if there are too few, the last caller gets the error."""
        self._requested -= 1
        if len(self._reservations) + self._requested < len(self._waiting):
            self._fail_callers(self._waiting[-1:], error)

    def close(self, error: Exception) -> None:
        """Fail all waiting callers, and cancel all reservations."""
        self._fail_callers(self._waiting, error)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out the reservations that have started, cancel those too many, and set the timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        handed_out, missed, self._doubled = False, list[int](), False
        while self._reservations and self.lateness(self._reservations[0]) >= 0:
            start = self._reservations.pop(0)
            in_time = self.lateness(start) <= self._usual_tolerance
            if in_time and self._loop.time() - self._last_start >= self._min_gap:
                handed_out = self.hand_out(start)
            else:
                missed.append(start)
        if missed and not handed_out:
            if self.lateness(missed[-1]) <= self._tolerance:
                self.hand_out(missed.pop())
            else:
                self._double_tolerance()
        for _ in missed:
            self._miss()
        # A reservation that is only requested may not come: it is cancelled when it is there.
        while len(self._reservations) > len(self._waiting):
            self.cancel(self._reservations.pop())
        if self._reservations:
            self._timer = self._loop.call_later(-self.lateness(self._reservations[0]), self.dispatch)

    def hand_out(self, start: int) -> bool:
        """Give a reservation to the first waiting caller, and return whether there was one."""
        while self._waiting:
            _, future = self._waiting.pop(0)
            if not future.done():
                self._last_start = self._loop.time()
                future.set_result(start)
                return True
        return False

    async def _handed_out(self, arrival: int, future: asyncio.Future[int]) -> int:
        try:
            return await future
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove((arrival, future))
            if future.done() and not future.cancelled() and future.exception() is None:
                self.hand_out(future.result())  # Cancelled after the reservation was handed out.
            self.dispatch()
            raise

    def _fail_callers(self, waiting: list[WaitingCaller], error: Exception) -> None:
        for waiter in list(waiting):
            self._waiting.remove(waiter)
            _, future = waiter
            if not future.done():
                future.set_exception(error)

    def _miss(self) -> None:
        is_needed = len(self._reservations) + self._requested < len(self._waiting)
        self._requested += is_needed
        self._on_missed(self, is_needed)

    def _double_tolerance(self) -> None:
        """Double the lateness tolerance (at most once per pass), so that a caller that is always late is served."""
        if not self._doubled:
            self._doubled = True
            self._tolerance *= 2


class Reservation:
    """A reservation of a pacer: wait for it or cancel it, in the event loop in which it was made.

    `start` is its start by the store's clock, in microseconds.
    """

    def __init__(self, queue: ReservationQueue, start: int) -> None:
        self._queue, self.start, self._over = queue, start, False

    @property
    def delay(self) -> float:
        """The seconds until it starts, 0.0 when it has."""
        return max(0.0, -self._queue.lateness(self.start))

    async def wait(self) -> float:
        """Return when the reservation starts, and how many seconds after that; a cancelled caller cancels it.

        A reservation that was used or cancelled raises `ConfigurationError`.
        """
        if self._over:
            raise ConfigurationError("this reservation was used or cancelled: make another one [RL704]")
        try:
            while (delay := self.delay) > 0:  # noqa: ASYNC110 - the store's clock may step back meanwhile
                await asyncio.sleep(delay)
        except BaseException:
            self.cancel()
            raise
        self._over = True
        return max(0.0, self._queue.lateness(self.start))

    def cancel(self) -> None:
        """Cancel the reservation, without waiting; repeating it has no effect.

        It goes to the next caller that asks, if no caller has a later one. Otherwise it is lost: moving every caller up
        would take a round trip for each, and giving it to the next one would let that caller overtake.
        """
        if not self._over:
            self._queue.cancel(self.start)
            self._over = True
