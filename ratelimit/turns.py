"""The turns that one process has taken of a pace, and who waits for them."""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_LATE: Final = 0.005
"""Seconds after its moment in which a turn is always good: event loops are no more exact than that."""


class Line:
    """Hands turns to those who wait, first come first served; for one key, in one event loop.

    A turn is its moment, by the loop's time. One that is missed by more than half an interval, because the machine was
    busy, is lost: everybody moves to the next one, and `missed` is called, with whether `more` is to be called with
    another. Where somebody is cancelled everybody moves up, and the last turn goes to `give_back`.
    """

    def __init__(self, interval: float, missed: Callable[[bool], object], give_back: Callable[[int], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._usual = self._late = max(interval / 2, _LATE)
        self._missed, self._give_back = missed, give_back
        self._turns: list[tuple[float, int]] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._turns or self._waiting or self._coming)

    def more(self, at: float, turn: int) -> None:
        """Take in a turn that was called for."""
        self._coming -= 1
        self._add(at, turn)

    def _add(self, at: float, turn: int) -> None:
        insort(self._turns, (at, turn))
        self._look()

    async def wait(self, at: float, turn: int) -> None:
        """Take in a turn, which the pacer knows as `turn`, and return when it is this caller's."""
        mine: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(mine)
        self._add(at, turn)
        try:
            await mine
        except BaseException:
            self._leave(mine)
            raise

    def _look(self) -> None:
        """Hand out the turns that have come, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._turns and self._turns[0][0] <= (now := self._loop.time()):
            self._hand_out(now - self._turns.pop(0)[0])
        if self._turns:
            self._timer = self._loop.call_at(self._turns[0][0], self._look)

    def _hand_out(self, late: float) -> None:
        if late > self._late:
            # Whoever is always late has to go some time.
            self._late *= 2
            wanted = len(self._turns) + self._coming < len(self._waiting)
            self._coming += wanted
            self._missed(wanted)
            return
        self._late = self._usual
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _leave(self, mine: asyncio.Future[None]) -> None:
        with suppress(ValueError):
            self._waiting.remove(mine)
        if mine.cancelled() and self._turns and len(self._turns) + self._coming > len(self._waiting):
            self._give_back(self._turns.pop()[1])
            self._look()
