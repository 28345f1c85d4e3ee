"""Group commit: requests that wait at the same moment travel in one call."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ratelimit.errors import RateLimitError, StoreError
from ratelimit.stores.base import Answer, Request

logger = logging.getLogger("ratelimit")

Send = Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]]
Batch = list[tuple[Request, asyncio.Future[Answer]]]

MAX_BATCH: Final = 128
"""Requests in one call: bounds how long one call holds the server."""

MAX_CHARGES: Final = 2000
"""Charges in one call: Lua cannot pass on more keys than some 8,000, and each takes its time."""

MAX_UNDER_WAY: Final = 2
"""Calls at a time: a second one only starts when a full batch waits."""


class GroupCommit:
    """Collects requests of one event loop and sends them together.

    If no call is under way, what arrives in this turn of the loop goes at its end; else all that waits goes along when
    the call under way returns, first come first served (of two calls under way, either may arrive first). A caller
    that is cancelled leaves the others of its batch alone; what was already sent for it is answered to the request's
    `abandoned`, which may undo it.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def submit(self, request: Request) -> Answer:
        """Return what the store answers to `request`; raises what the call raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((request, future))
        if self._may_send() and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
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
            await asyncio.wait(self._under_way)
            await asyncio.sleep(0)  # Lets the callbacks of finished calls run; waiting for what is done does not.

    def _may_send(self) -> bool:
        return not self._under_way or (len(self._under_way) < MAX_UNDER_WAY and len(self._waiting) >= MAX_BATCH)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and self._may_send():
            if batch := self._next_batch():
                task = asyncio.create_task(self._run(batch))
                self._under_way.add(task)
                task.add_done_callback(self._landed)

    def _next_batch(self) -> Batch:
        batch: Batch = []
        charges = 0
        while self._waiting and len(batch) < MAX_BATCH:
            charges += len(self._waiting[0][0].charges)
            if batch and charges > MAX_CHARGES:
                break
            request, future = self._waiting.popleft()
            if not future.done():
                batch.append((request, future))
        return batch

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._flush()

    async def _run(self, batch: Batch) -> None:
        try:
            answers = await self._send([request for request, _ in batch])
        except RateLimitError as error:
            self._fail(batch, error)
        except Exception as error:
            logger.exception("a call to the store failed in a way that is not foreseen")
            self._fail(batch, StoreError(f"unforeseen: {type(error).__name__}"))
        except BaseException:
            self._fail(batch, StoreError("the call to the store was cut off"))
            raise
        else:
            for (request, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
                else:
                    _abandon(request, answer)

    def _fail(self, batch: Batch, error: RateLimitError) -> None:
        for request, future in batch:
            if not future.done():
                # Each waiter gets an error of its own: a shared one would collect everybody's traceback.
                future.set_exception(type(error)(*error.args))
            else:
                _abandon(request, None)


def _abandon(request: Request, answer: Answer | None) -> None:
    if request.abandoned is not None:
        request.abandoned(request, answer)
