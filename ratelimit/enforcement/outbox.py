"""Correction outbox: what the store has to count, kept while it is unavailable (hinted handoff)."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.errors import StoreError, StorePartiallyUnavailable
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest

logger = logging.getLogger("ratelimit")

OUTBOX_CAPACITY: Final = 10_000
"""Corrections that are kept; beyond that the oldest are lost."""

FLUSH_INTERVAL: Final = 0.2
"""Seconds at least between two flushes that requests start."""

_FLUSHES: Final = 10
"""How often a worker reports what it admits while the workers hand over to the store."""

FLUSH_BATCH: Final = 1000
"""Corrections that are sent together."""


class CorrectionOutbox:
    """Keeps corrections until the store is available, and sends them together with the local fallback's usage."""

    def __init__(
        self,
        store: Store,
        fallback: LocalFallback,
        tasks: BackgroundTasks,
        on_failure: Callable[[StoreError], None],
    ) -> None:
        self._store, self._fallback, self._tasks, self._on_failure = store, fallback, tasks, on_failure
        self._flushed_at = float("-inf")
        self.lost = 0
        """Units of the corrections that were lost."""
        self._queue: deque[StoreRequest] = deque(maxlen=OUTBOX_CAPACITY)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not self._queue and not self._fallback.has_unreported

    def enqueue(self, request: StoreRequest) -> None:
        """Keep a correction; a renewal is dropped, since its lease will have ended."""
        if request.operation == Operation.ADJUST:
            if len(self._queue) == OUTBOX_CAPACITY:
                logger.error("store unavailable: more than %d corrections; the oldest is lost [RL409]", OUTBOX_CAPACITY)
                self.lost += sum(abs(charge.cost) for charge in self._queue[0].charges)
            self._queue.append(request)

    def enqueue_release(self, charges: Sequence[Charge], holder: int) -> None:
        """Keep the release of permits that a call may or may not have taken."""
        permits = [charge for charge in charges if charge.limit.kind == "concurrency" and charge.cost < 0]
        if permits and holder:
            self.enqueue(StoreRequest(permits, Operation.ADJUST, holder))

    def clear(self) -> None:
        """Keep nothing, also of the local fallback's usage: another process sends it."""
        self._queue.clear()
        self._fallback.discard_unreported()

    async def flush_for(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Flush several times in so many seconds, until it is over."""
        for _ in range(_FLUSHES):
            await self.flush()
            if is_over():
                break
            await asyncio.sleep(seconds / _FLUSHES)

    def flush_soon(self) -> None:
        """Send everything in the background, at most once in 0.2 s."""
        now = asyncio.get_running_loop().time()
        if not self.is_empty and not 0 <= now - self._flushed_at < FLUSH_INTERVAL:
            self._flushed_at = now
            self._tasks.spawn(self.flush())

    async def flush(self) -> None:
        """Send everything. A failure is reported to `on_failure`; the store completes what was sent by itself."""
        queued = [*self._fallback.drain(), *self._queue]
        self._queue.clear()
        for start in range(0, len(queued), FLUSH_BATCH):
            batch = queued[start : start + FLUSH_BATCH]
            results = await asyncio.gather(*map(self._store.submit, batch), return_exceptions=True)
            for request, result in zip(batch, results, strict=True):
                if isinstance(result, StorePartiallyUnavailable):
                    if not result.is_kept:
                        self.enqueue(request)  # It was not sent.
                elif isinstance(result, StoreError):
                    self._on_failure(result)
                elif isinstance(result, BaseException):
                    raise result
