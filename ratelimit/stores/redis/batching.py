"""Batching (group commit): requests that wait at the same moment travel in one call."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ratelimit.errors import RateLimitError, StoreError, StoreTimeout, StoreUnavailable
from ratelimit.stores.base import T
from ratelimit.stores.messages import CORRECTIONS, Outcome, StoreReply, StoreRequest

logger = logging.getLogger("ratelimit")

BatchResult = Sequence[StoreReply] | Exception
"""The replies to a call, one for each request, or the error that the call ended with."""

Send = Callable[[Sequence[StoreRequest], Callable[[BatchResult], None]], None]
"""Starts a call, and hands over its result once."""

Then = Callable[[StoreRequest, Outcome], Any]
"""Makes the result of a caller's future of how its request ended."""

Waiting = tuple[StoreRequest, asyncio.Future[Any], Then | None]

MAX_BATCH_REQUESTS: Final = 128
"""Requests in one call: bounds how long one call holds the server."""

MAX_BATCH_CHARGES: Final = 160
"""Charges in one call. Where all of them are refused, each behind 64 entries, the server is held for 5 ms
(`benchmarks/stores/longest_call.py`)."""

MAX_IN_FLIGHT: Final = 2
"""Calls at a time: while the server works on one, this process encodes and decodes the other."""

SECOND_CALL_MIN: Final = 4
"""Waiting requests from which a second call starts before the first has returned."""

OnBatch = Callable[[int], None]
"""Takes the number of requests that travel in one call."""


class Batcher:
    """Collects the requests of one event loop and sends them together.

    If no call is in flight, the requests that arrive in this turn of the event loop go at its end. Otherwise they wait
    until there are enough of them for a second call, or until the call in flight returns. First come, first served.

    A caller that is cancelled leaves the other requests of its batch alone; if its request was already sent, the reply
    goes to `StoreRequest.on_orphaned`, which may undo it. `on_batch` gets to know how many requests travel together.
    """

    def __init__(self, send: Send, on_batch: OnBatch | None = None) -> None:
        self._send, self._on_batch = send, on_batch
        self._waiting: deque[Waiting] = deque()
        self._in_flight = 0
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._idle: asyncio.Future[None] | None = None

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Return the store's reply to `request`; raises what the call ended with."""
        future: asyncio.Future[StoreReply] = self._enqueue(request, None)
        try:
            return await future
        except asyncio.CancelledError:
            # The reply may have arrived in the same turn of the event loop.
            if future.done() and not future.cancelled() and future.exception() is None:
                _orphan(request, future.result())
            raise

    def submit_soon(self, request: StoreRequest, then: Callable[[StoreRequest, Outcome], T]) -> asyncio.Future[T]:
        """Return a future of what `then` makes of the reply to `request`, or of what the call ended with."""
        return self._enqueue(request, then)

    def _enqueue(self, request: StoreRequest, then: Then | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((request, future, then))
        if not self._scheduled and self._may_send():
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    async def drain(self) -> None:
        """Send the waiting requests, and wait for the calls in flight."""
        self._flush()
        while self._in_flight:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)

    def _may_send(self) -> bool:
        return not self._in_flight or (self._in_flight < MAX_IN_FLIGHT and len(self._waiting) >= SECOND_CALL_MIN)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and self._may_send():
            if batch := self._next_batch():
                self._in_flight += 1
                if self._on_batch is not None:
                    self._on_batch(len(batch))
                finished = partial(self._finished, batch)
                try:
                    self._send([request for request, _, _ in batch], finished)
                except Exception as error:  # noqa: BLE001 - handed to the callers, and logged
                    finished(error)

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        # Of many requests half are sent, so that there are two calls, and server and process work at the same time.
        half = max(SECOND_CALL_MIN, -(-len(self._waiting) // 2))
        limit = MAX_BATCH_REQUESTS if self._in_flight else min(MAX_BATCH_REQUESTS, half)
        while self._waiting and len(batch) < limit:
            request, future, then = self._waiting[0]
            size += len(request.charges)
            if batch and size > MAX_BATCH_CHARGES:
                break
            self._waiting.popleft()
            if not future.done():
                batch.append((request, future, then))
        return batch

    def _finished(self, batch: Sequence[Waiting], result: BatchResult) -> None:
        self._in_flight -= 1
        if isinstance(result, Exception):
            _fail(batch, result)
            if isinstance(result, (StoreTimeout, StoreUnavailable)):
                _fail(self._drop_decisions(), result)
        else:
            for (request, future, then), reply in zip(batch, result, strict=True):
                if future.done():
                    _orphan(request, reply)
                elif then is None:
                    future.set_result(reply)
                else:
                    _finish(request, future, then, reply)
        if self._waiting:
            self._flush()
        if self._idle is not None and not self._in_flight and not self._waiting:
            self._idle.set_result(None)
            self._idle = None

    def _drop_decisions(self) -> list[Waiting]:
        """Return the waiting requests that would have to wait as long again as those before; corrections stay."""
        waiting, self._waiting = self._waiting, deque()
        dropped: list[Waiting] = []
        for each in waiting:
            (self._waiting if each[0].operation in CORRECTIONS else dropped).append(each)
        return dropped


def _fail(batch: Sequence[Waiting], error: Exception) -> None:
    if not isinstance(error, RateLimitError):
        logger.error("store call failed with an unexpected error [RL408]", exc_info=error)
        error = StoreError(f"unexpected {type(error).__name__} [RL408]")
    for request, future, then in batch:
        if not future.done():
            # Each caller gets an error of its own, since a shared one would collect every caller's traceback. Its cause
            # tells which callers failed together.
            own = type(error)(*error.args)
            own.__cause__ = error
            if then is None or not isinstance(own, StoreError):
                future.set_exception(own)
            else:
                _finish(request, future, then, own)
        else:
            _orphan(request, None)


def _finish(request: StoreRequest, future: asyncio.Future[Any], then: Then, outcome: Outcome) -> None:
    try:
        result = then(request, outcome)
    except Exception as error:  # noqa: BLE001 - handed to the caller
        if not future.done():
            future.set_exception(error)
        return
    if not future.done():
        future.set_result(result)
    elif not isinstance(outcome, StoreError):  # What heard of the outcome has cancelled the caller.
        _orphan(request, outcome)


def _orphan(request: StoreRequest, reply: StoreReply | None) -> None:
    if request.on_orphaned is not None:
        request.on_orphaned(request, reply)
