"""The turns that one process has taken of a pace, and who waits for them."""

import asyncio
import math
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from ratelimit.errors import ConfigurationError

_LATE: Final = 0.005
"""Seconds after its moment in which a turn is always good: event loops are no more exact than that."""

_STEP: Final = 0.01
"""Seconds by which a turn may seem to come before it can: more than that, and the store's clock was set back."""


class Line:
    """Hands turns to those who wait, first come first served; for one key, in one event loop.

    A turn is its moment by the store's clock, in microseconds. One that is missed by more than half an interval, because
    the machine was busy, is lost: everybody moves to the next one, and `missed` is called, with whether another is
    wanted (`more`, or `failed`). Where somebody is cancelled everybody moves up, and the last turn goes to `give_back`.
    """

    def __init__(
        self, interval: float, missed: Callable[["Line", bool], object], give_back: Callable[[int], object]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._usual = self._late = max(interval / 2, _LATE)
        self._gap = interval - self._usual
        self._missed, self.give_back = missed, give_back
        self._turns: list[int] = []
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._arrivals, self._coming = count(), 0
        self._behind, self._last = math.inf, -math.inf
        self._slowed = False
        self._timer: asyncio.TimerHandle | None = None

    def hear(self, turn: int, wait: int, asked: float, now: float) -> None:
        """Learn how far the store's clock is behind: `turn` was `wait` µs away between `asked` and `now`."""
        behind = now - (turn - wait) / 1e6
        # Answers take longer or less long, and turns are as even as the store says: the quickest tells its clock best.
        best = min(behind, self._behind)
        early = asked + wait / 1e6 - (turn / 1e6 + best)
        self._behind = behind if early > _STEP else best

    def late(self, turn: int) -> float:
        """Return the seconds since a turn has begun, below zero until it has, as well as it is known now."""
        return self._loop.time() - turn / 1e6 - self._behind

    async def wait(self, turn: int) -> None:
        """Take in a turn, and return when it is this caller's."""
        insort(self._turns, turn)
        number, mine = next(self._arrivals), self._loop.create_future()
        insort(self._waiting, (number, mine))
        self._look()
        while (late := self.late(await self._handed(number, mine))) > self._late:
            # It was handed out in time, and not taken: whoever came first is still the first.
            mine = self._loop.create_future()
            insort(self._waiting, (number, mine))
            self._slow_down()
            self._miss()
        if late <= self._usual:
            self._late = self._usual

    def more(self, turn: int) -> None:
        """Take in a turn that was wanted."""
        self._coming -= 1
        insort(self._turns, turn)
        self._look()

    def failed(self, error: Exception) -> None:
        """Take note that there is no turn where one was wanted: the last one goes without, if it still is."""
        self._coming -= 1
        if len(self._turns) + self._coming < len(self._waiting):
            self._end(self._waiting[-1:], error)

    def close(self, error: Exception) -> None:
        """Let nobody wait any more, and give all turns back."""
        self._end(self._waiting, error)
        self._look()

    def _end(self, waiting: list[tuple[int, asyncio.Future[int]]], error: Exception) -> None:
        for each in list(waiting):
            self._waiting.remove(each)
            if not each[1].done():
                each[1].set_exception(error)

    async def _handed(self, number: int, mine: asyncio.Future[int]) -> int:
        try:
            return await mine
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove((number, mine))
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._hand_out(mine.result())  # Cancelled with the turn in its hand.
            self._look()
            raise

    def _look(self) -> None:
        """Hand out the turns that have come, give back what is too many, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        handed, missed, self._slowed = False, list[int](), False
        while self._turns and self.late(self._turns[0]) >= 0:
            turn = self._turns.pop(0)
            if self.late(turn) <= self._usual and self._loop.time() - self._last >= self._gap:
                handed = self._hand_out(turn)
            else:
                missed.append(turn)
        if missed and not handed:
            if self.late(missed[-1]) <= self._late:
                self._hand_out(missed.pop())
            else:
                self._slow_down()
        for _ in missed:
            self._miss()
        # What is only coming may not come: it is given back when it is there.
        while len(self._turns) > len(self._waiting):
            self.give_back(self._turns.pop())
        if self._turns:
            self._timer = self._loop.call_later(-self.late(self._turns[0]), self._look)

    def _hand_out(self, turn: int) -> bool:
        while self._waiting:
            _, mine = self._waiting.pop(0)
            if not mine.done():
                self._last = self._loop.time()
                mine.set_result(turn)
                return True
        return False

    def _miss(self) -> None:
        wanted = len(self._turns) + self._coming < len(self._waiting)
        self._coming += wanted
        self._missed(self, wanted)

    def _slow_down(self) -> None:
        """Wait longer for who is late, once for each look: whoever is always late has to go some time."""
        if not self._slowed:
            self._slowed = True
            self._late *= 2


class Turn:
    """A turn that was taken: wait for it, or give it back, in the event loop in which it was reserved.

    `number` is its moment by the store's clock, in microseconds.
    """

    def __init__(self, line: Line, number: int) -> None:
        self._line, self.number, self._over = line, number, False

    @property
    def delay(self) -> float:
        """The seconds until it begins, 0.0 when it has."""
        return max(0.0, -self._line.late(self.number))

    async def wait(self) -> float:
        """Return when the turn begins, and say how many seconds after that; who is cancelled meanwhile gives it back."""
        if self._over:
            raise ConfigurationError("this turn was taken, or given back: reserve another")
        try:
            while (delay := self.delay) > 0:  # noqa: ASYNC110 - the store's clock may be set back meanwhile
                await asyncio.sleep(delay)
        except BaseException:
            self.give_back()
            raise
        self._over = True
        return max(0.0, self._line.late(self.number))

    def give_back(self) -> None:
        """Give back a turn that was not waited for to its end, without waiting; again does nothing.

        It goes to who asks next, where nobody has a later one. Others are lost: moving everybody up would take a round
        trip each, and giving it to who comes next would let them overtake.
        """
        if not self._over:
            self._line.give_back(self.number)
            self._over = True
