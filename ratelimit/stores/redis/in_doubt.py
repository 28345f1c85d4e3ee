"""Calls without a reply: found out about, and completed, when the store answers again."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.errors import StoreError, StorePartiallyUnavailable
from ratelimit.stores.messages import CORRECTIONS, StoreReply, StoreRequest
from ratelimit.stores.redis.batching import BatchResult
from ratelimit.stores.redis.pending_call import PendingCall

logger = logging.getLogger("ratelimit")

LookUp = Callable[[PendingCall, Callable[[BatchResult], None]], None]
"""Asks the server for the kept reply of a call, and hands it over: no replies where the call was not executed."""

MAX_IN_DOUBT: Final = 1000
"""Maximum number of in-doubt calls tracked; the oldest are dropped beyond that."""

MAX_UNSENT: Final = 10_000
"""Maximum number of corrections kept that could not be sent; the oldest are dropped beyond that."""

_RESOLVE_INTERVAL_S: Final = 0.3
"""Seconds at least between two rounds of look-ups."""


class InDoubtCalls:
    """The calls of one event loop that may or may not have been executed, and corrections that could not be sent.

    When the store answers again, the kept reply of each call is looked up, wherever its hash slot is by then. What was
    done goes to `StoreRequest.on_orphaned`, and corrections that were not done are sent (again) by `submit`.
    """

    def __init__(
        self, look_up: LookUp, submit: Callable[[StoreRequest], Awaitable[StoreReply]], timeout: float
    ) -> None:
        self._look_up, self._submit, self._timeout = look_up, submit, timeout
        self._loop = asyncio.get_running_loop()
        self._calls: deque[PendingCall] = deque(maxlen=MAX_IN_DOUBT)
        self._unsent: deque[StoreRequest] = deque(maxlen=MAX_UNSENT)
        self._resolved_at = float("-inf")
        self._resolving = 0
        self._tasks = BackgroundTasks()

    @property
    def is_empty(self) -> bool:
        """Whether no call is in doubt, none is being looked up, and no correction is still to be sent."""
        return not (self._calls or self._unsent or self._resolving or self._tasks)

    def add(self, call: PendingCall) -> None:
        """Keep a call whose outcome is unknown; of too many the oldest is lost, with a line in the log."""
        if len(self._calls) == MAX_IN_DOUBT:
            logger.error(
                "more than %d store calls are in doubt: the outcome of the oldest is lost [RL409]", MAX_IN_DOUBT
            )
        self._calls.append(call)

    def add_unsent(self, requests: Iterable[StoreRequest]) -> None:
        """Keep the corrections among requests that were not sent; of too many the oldest is lost, with a line in the log."""
        for request in requests:
            if request.operation in CORRECTIONS:
                if len(self._unsent) == MAX_UNSENT:
                    logger.error("more than %d corrections could not be sent: the oldest is lost [RL409]", MAX_UNSENT)
                self._unsent.append(request)

    def resolve_soon(self) -> None:
        """Look up the calls in the background, at most once in 0.3 s: the store has just answered."""
        if (self._calls or self._unsent) and self._loop.time() - self._resolved_at >= _RESOLVE_INTERVAL_S:
            self._resolve_all()

    async def resolve(self) -> bool:
        """Look up the calls now, and return whether none remains in doubt."""
        self._resolve_all()
        ends = self._loop.time() + 2 * self._timeout
        while (self._resolving or self._tasks) and self._loop.time() < ends:  # noqa: ASYNC110 - as long as calls take
            await asyncio.sleep(0.001)
        return self.is_empty

    async def aclose(self) -> None:
        """End what runs in the background."""
        await self._tasks.cancel()

    def _resolve_all(self) -> None:
        unsent, self._unsent = self._unsent, deque(maxlen=MAX_UNSENT)
        self._send_again(unsent)
        calls, self._calls = self._calls, deque(maxlen=MAX_IN_DOUBT)
        self._resolved_at = self._loop.time()
        self._resolving += len(calls)
        for call in calls:
            self._look_up(call, partial(self._found, call))

    def _found(self, call: PendingCall, result: BatchResult) -> None:
        self._resolving -= 1
        if isinstance(result, Exception):
            self.add(call)
        elif result:
            for request, reply in zip(call.requests, result, strict=True):
                if request.on_orphaned is not None:
                    request.on_orphaned(request, reply)
        elif call.is_named:  # It was not done. The callers have decided without it; corrections are still due.
            self._send_again(request for request in call.requests if request.operation in CORRECTIONS)
        else:
            logger.error(
                "a store call in a hash slot that is being migrated has lost its reply: it may be missing [RL409]"
            )

    def _send_again(self, corrections: Iterable[StoreRequest]) -> None:
        for request in corrections:
            self._tasks.spawn(self._submit_again(request))

    async def _submit_again(self, request: StoreRequest) -> None:
        try:
            await self._submit(request)
        except StorePartiallyUnavailable as error:
            if not error.is_kept:
                self.add_unsent([request])
        except StoreError:
            pass  # It is in doubt again, or kept as unsent.
