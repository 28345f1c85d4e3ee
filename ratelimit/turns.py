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

    A turn is a number, that grows with its moment; `moment` says which that is, by the loop's time. One that is missed by more than half an interval, because the machine was
    busy, is lost: everybody moves to the next one, and `missed` is called, with whether `more` is to be called with
    another. Where somebody is cancelled everybody moves up, and the last turn goes to `give_back`.
    """

    def __init__(
        self,
        interval: float,
        moment: Callable[[int], float],
        missed: Callable[[bool], object],
        give_back: Callable[[int], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._usual = self._late = max(interval / 2, _LATE)
        self._moment, self._missed, self._give_back = moment, missed, give_back
        self._turns: list[int] = []
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._turns or self._waiting or self._coming)

    def more(self, turn: int) -> None:
        """Take in a turn that was called for."""
        self._coming -= 1
        self._add(turn)

    def _add(self, turn: int) -> None:
        insort(self._turns, turn)
        self._look()

    async def wait(self, turn: int) -> None:
        """Take in a turn, and return when it is this caller's."""
        mine = self._loop.create_future()
        self._waiting.append(mine)
        self._add(turn)
        while not self._in_time(await self._handed(mine)):
            # It was handed out in time, and not taken: this one is still the first.
            mine = self._loop.create_future()
            self._waiting.appendleft(mine)
            self._miss()
        self._late = self._usual

    async def _handed(self, mine: asyncio.Future[int]) -> int:
        try:
            return await mine
        except BaseException:
            self._leave(mine)
            raise

    def _look(self) -> None:
        """Hand out the turns that have come, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._turns and self._moment(self._turns[0]) <= self._loop.time():
            self._hand_out(self._turns.pop(0))
        if self._turns:
            self._timer = self._loop.call_at(self._moment(self._turns[0]), self._look)

    def _hand_out(self, turn: int) -> None:
        if not self._in_time(turn):
            self._miss()
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(turn)
                return

    def _in_time(self, turn: int) -> bool:
        return self._loop.time() - self._moment(turn) <= self._late

    def _miss(self) -> None:
        self._late *= 2  # Whoever is always late has to go some time.
        wanted = len(self._turns) + self._coming < len(self._waiting)
        self._coming += wanted
        self._missed(wanted)

    def _leave(self, mine: asyncio.Future[int]) -> None:
        with suppress(ValueError):
            self._waiting.remove(mine)
        if mine.cancelled() and self._turns and len(self._turns) + self._coming > len(self._waiting):
            self._give_back(self._turns.pop())
            self._look()
