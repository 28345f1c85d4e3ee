"""Group commit: requests that wait at the same moment travel in one call."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ratelimit.errors import RateLimitError, StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.base import CORRECTIONS, Answer, Request

logger = logging.getLogger("ratelimit")

Told = Sequence[Answer] | Exception
"""The answers to a call, one for each request, or why there are none."""

Send = Callable[[Sequence[Request], Callable[[Told], None]], None]
"""Begins a call, and tells what came of it, once."""

Batch = list[tuple[Request, asyncio.Future[Answer]]]

MAX_BATCH: Final = 128
"""Requests in one call: bounds how long one call holds the server."""

MAX_CHARGES: Final = 160
"""Charges in one call: where all of them are refused, and each wait is found behind 64 entries, the server is held for
5 ms (`benchmarks/longest_call.py`)."""

MAX_UNDER_WAY: Final = 2
"""Calls at a time: while the server works on one, this process reads and writes the other."""

WORTH_A_CALL: Final = 4
"""Requests that wait, from which a second call starts before the first has returned."""


class GroupCommit:
    """Collects requests of one event loop and sends them together.

    If no call is under way, what arrives in this turn of the loop goes at its end; else what waits goes along when
    enough do, or when the call under way returns: always first come first served. A caller that is cancelled leaves
    the others of its batch alone; what was already sent for it is answered to the request's `abandoned`, which may
    undo it.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._under_way = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] | None = None

    async def submit(self, request: Request) -> Answer:
        """Return what the store answers to `request`; raises what the call raised."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((request, future))
        if not self._scheduled and self._may_send():
            self._scheduled = True
            self._loop.call_soon(self._flush)
        try:
            return await future
        except asyncio.CancelledError:
            # The answer may have come in the same turn of the loop.
            if future.done() and not future.cancelled() and future.exception() is None:
                _abandon(request, future.result())
            raise

    async def aclose(self) -> None:
        """Send what waits, and wait for the calls under way."""
        self._flush()
        while self._under_way:
            self._done = self._done or self._loop.create_future()
            await asyncio.shield(self._done)

    def _may_send(self) -> bool:
        return not self._under_way or (self._under_way < MAX_UNDER_WAY and len(self._waiting) >= WORTH_A_CALL)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and self._may_send():
            if batch := self._next_batch():
                self._under_way += 1
                landed = partial(self._landed, batch)
                try:
                    self._send([request for request, _ in batch], landed)
                except Exception as error:  # noqa: BLE001 - told to who waits, and logged
                    landed(error)

    def _next_batch(self) -> Batch:
        batch: Batch = []
        charges = 0
        # Of many, half: so that there are two calls, and the server and this process work at the same time.
        half = max(WORTH_A_CALL, -(-len(self._waiting) // 2))
        most = MAX_BATCH if self._under_way else min(MAX_BATCH, half)
        while self._waiting and len(batch) < most:
            charges += len(self._waiting[0][0].charges)
            if batch and charges > MAX_CHARGES:
                break
            request, future = self._waiting.popleft()
            if not future.done():
                batch.append((request, future))
        return batch

    def _landed(self, batch: Batch, told: Told) -> None:
        self._under_way -= 1
        if isinstance(told, Exception):
            _fail(batch, told)
            if isinstance(told, (StoreTimeout, StoreUnavailable)):
                # Those who have waited behind it would wait as long again; corrections are done in any case.
                waiting, self._waiting = self._waiting, deque()
                self._waiting += [each for each in waiting if each[0].op in CORRECTIONS]
                _fail([each for each in waiting if each[0].op not in CORRECTIONS], told)
        else:
            for (request, future), answer in zip(batch, told, strict=True):
                if not future.done():
                    future.set_result(answer)
                else:
                    _abandon(request, answer)
        if self._waiting:
            self._flush()
        elif self._done is not None and not self._under_way:
            self._done.set_result(None)
            self._done = None


def _fail(batch: Batch, error: Exception) -> None:
    if not isinstance(error, RateLimitError):
        logger.error("a call to the store failed in a way that is not foreseen", exc_info=error)
        error = StoreError(f"unforeseen: {type(error).__name__}")
    for request, future in batch:
        if not future.done():
            # Each waiter gets an error of its own (a shared one would collect everybody's traceback), and its cause
            # tells who has failed together.
            own = type(error)(*error.args)
            own.__cause__ = error
            future.set_exception(own)
        else:
            _abandon(request, None)


def _abandon(request: Request, answer: Answer | None) -> None:
    if request.abandoned is not None:
        request.abandoned(request, answer)
