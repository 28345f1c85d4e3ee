"""A store that is away: when it is given up, how it is found again, and what it has to hear of then."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final
from weakref import WeakSet

from ratelimit.charge import Charge, Terms
from ratelimit.clock import Clock
from ratelimit.errors import StoreError, StorePartlyAway
from ratelimit.fallback import Fallback
from ratelimit.stores import Answer, Op, Request, Store

logger = logging.getLogger("ratelimit")

_PATIENCE: Final = 5
"""Calls in a row that have failed, after which requests no longer wait for the store."""

PAUSE: Final = 0.2
"""Seconds between two looks for a store that is away."""

GRACE: Final = 0.5
"""Seconds from when a worker has found the store until it decides by it again: the others find it meanwhile."""

_TRIES: Final = 3
"""How often it is tried to write what is kept when this is closed."""

_STEPS: Final = 10
"""How often a worker tells the store what it admits in that time."""

_MOST_OWED: Final = 10_000
"""Corrections that are kept while the store is away; beyond that the oldest are given up."""

_AT_ONCE: Final = 1000
"""Corrections that are sent together when it is back."""


_PROBE: Final = Terms(kind="limit", policy="#look", scope="global", limit=10**9, window=1)
"""What is charged to find out whether the store can be written to."""


class Absence:
    """Counts failures in a row, looks for the store in the background, and keeps what it has to hear of.

    Each change between away and back is one line in the log.
    """

    def __init__(self, store: Store, clock: Clock, prefix: str) -> None:
        self._store = store
        self._probe = Charge(_PROBE, f"{prefix}:{{any}}:#look:1:*")
        self.fallback = Fallback(clock)
        self._failures = 0
        self._returning = False
        self._handed_over = float("-inf")
        self._last: BaseException | None = None
        self._looking: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None
        self._owed: deque[Request] = deque(maxlen=_MOST_OWED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    @property
    def away(self) -> bool:
        """Whether nobody waits for the store any more."""
        return self._failures >= _PATIENCE

    @property
    def closed(self) -> bool:
        """Whether this is closed in the event loop that runs."""
        return asyncio.get_running_loop() in self._closed

    def open(self) -> None:
        """Look for the store in this event loop again."""
        self._closed.discard(asyncio.get_running_loop())

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something in the background, which closing waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self) -> None:
        """Wait for what is done in the background of this event loop."""
        loop = asyncio.get_running_loop()
        while mine := [task for task in self._tasks if task.get_loop() is loop]:
            await asyncio.wait(mine)
            await asyncio.sleep(0)  # Lets the callbacks of finished tasks run; waiting for what is done does not.

    def watch(self) -> None:
        """Look for the store from this event loop on, until it is back."""
        looking = self._returning or (self._looking is not None and not self._looking[0].is_closed())
        if not looking and not self.closed:
            loop = asyncio.get_running_loop()
            self._looking = loop, loop.call_later(PAUSE, lambda: self.spawn(self.look()))

    async def look(self) -> None:
        """Charge a counter of nobody's, to see whether the store is back and can be written to."""
        self._looking = None
        try:
            await self._store.submit(Request([self._probe], Op.CHARGE))
        except StoreError:
            self.watch()
        else:
            self.found()

    def failed(self, error: StoreError) -> None:
        """Take note of a failure; with enough calls in a row that fail the store is given up."""
        if isinstance(error, StorePartlyAway) or (error.__cause__ is not None and error.__cause__ is self._last):
            return  # What the others keep goes on; or it is of the same call.
        self._last = error.__cause__
        if not self._failures:
            logger.error("store away: %s %r; limits go by on_store_failure", error, self._store)
        self._failures += 1
        if self._failures >= _PATIENCE:
            self.watch()

    def keep(self, request: Request) -> None:
        """Keep a correction until the store is back."""
        if request.op == Op.ADJUST:
            if len(self._owed) == _MOST_OWED:
                logger.error("the store is away for too long: the oldest of %d corrections is given up", _MOST_OWED)
            self._owed.append(request)

    def owe(self, charges: Sequence[Charge], holder: int) -> None:
        """Keep the slots of a call that may or may not have been done."""
        slots = [charge for charge in charges if charge.terms.kind == "concurrency" and charge.cost < 0]
        if slots and holder:
            self.keep(Request(slots, Op.ADJUST, holder))

    def answered(self, request: Request, answer: Answer) -> None:
        """Take note of an answer. Only one that has written something ends an absence: a full store still refuses."""
        self.fallback.heard(request.charges, answer)
        if (self._failures or self._owed or self.fallback.used) and _has_written(request, answer):
            self.found()

    def found(self) -> None:
        """Take note that the store is there, and write what was kept for it."""
        if not self.away:
            if self._failures:
                logger.warning("store back: %r; limits are shared again", self._store)
            self._failures = 0
            now = asyncio.get_running_loop().time()
            lately = 0 <= now - self._handed_over < PAUSE and not self.closed
            if (self._owed or self.fallback.used) and not lately:
                self._handed_over = now
                self.spawn(self._hand_over())
        elif not self._returning:
            self._returning = True
            self.spawn(self._return())

    async def _return(self) -> None:
        """Go on with this worker's share until the others have found the store too, and tell it what that admits.

        Else the first to come back would be given what the others have admitted, and not said yet.
        """
        try:
            for _ in range(_STEPS if self.fallback.workers > 1 else 0):
                await self._hand_over()
                if not self._returning or self.closed:
                    break
                await asyncio.sleep(GRACE / _STEPS)
            if self._returning:
                self._failures = 0
                logger.warning("store back: %r; limits are shared again", self._store)
                await self._hand_over()
        finally:
            self._returning = False
            if self.away:
                self.watch()

    async def _hand_over(self) -> None:
        kept, self._owed = [*self.fallback.hand_over(), *self._owed], deque(maxlen=_MOST_OWED)
        for start in range(0, len(kept), _AT_ONCE):
            some = kept[start : start + _AT_ONCE]
            answers = await asyncio.gather(*map(self._store.submit, some), return_exceptions=True)
            for request, told in zip(some, answers, strict=True):
                if isinstance(told, StorePartlyAway):
                    self.keep(request)
                elif isinstance(told, StoreError):
                    self._returning = False  # It has gone again; what has set out it finishes itself.
                    self.failed(told)
                elif isinstance(told, BaseException):
                    raise told

    async def aclose(self) -> None:
        """Wait for corrections under way, and try once more to write what is kept."""
        loop = asyncio.get_running_loop()
        if self._looking is not None and self._looking[0] is loop:
            self._looking[1].cancel()
            self._looking = None
        self._closed.add(loop)
        for _ in range(_TRIES):
            settled = await self._store.settle()
            await self.drain()
            if settled and not self._owed and not self.fallback.used:
                return
            await self.look()
            await self.drain()
        if self._owed or self.fallback.used or not await self._store.settle():
            logger.error("closed while the store is away: what was charged and corrected meanwhile is not written")


def _has_written(request: Request, answer: Answer) -> bool:
    return request.op not in (Op.PEEK, Op.USAGE) and all(wait <= 0 for _, _, wait in answer.numbers)
