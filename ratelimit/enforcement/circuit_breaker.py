"""Circuit breaker for a store: opens after repeated failures, probes for recovery, and closes again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal
from weakref import WeakSet

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.clock import monotonic

logger = logging.getLogger("ratelimit")

FAILURE_THRESHOLD: Final = 5
"""Consecutive failed calls after which the breaker opens."""

PROBE_INTERVAL: Final = 0.2
"""Seconds between two probes of an unavailable store."""

MAX_RECOVERY: Final = 10.0
"""Seconds after which a recovery that has not ended is begun again, by whichever event loop probes next."""

State = Literal["closed", "open", "half-open"]


class CircuitBreaker:
    """Counts consecutive failures of a store, and probes it while it is unavailable.

    *Closed*: calls are made. *Open*, after `threshold` consecutive failures: no request waits for the store, and `probe`
    is awaited every 0.2 s in each event loop that needs the store; it raises while the store is unavailable.
    *Half-open*, after a probe or another call succeeded: `recover` is awaited, and requests still do without the store.
    When it returns, the breaker closes, unless `reopen` was called meanwhile, and `on_closed` is awaited.

    The first failure and the recovery are one log line each: `unavailable` and `available` say in them what follows.
    `on_change` is called then too, with the error or `None`.
    Without a `probe`, the breaker only counts and logs.
    """

    def __init__(
        self,
        name: object,
        *,
        unavailable: str,
        available: str,
        probe: Callable[[], Awaitable[None]] | None = None,
        recover: Callable[[], Awaitable[None]] | None = None,
        on_closed: Callable[[], Awaitable[None]] | None = None,
        threshold: int = FAILURE_THRESHOLD,
        tasks: BackgroundTasks | None = None,
        on_change: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self._name, self._unavailable, self._available = name, unavailable, available
        self._probe, self._recover, self._on_closed, self._threshold = probe, recover, on_closed, threshold
        self._on_change = on_change
        self._failures = 0
        self._recovery_began: float | None = None
        self._last_cause: BaseException | None = None
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._stopped: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._tasks = BackgroundTasks() if tasks is None else tasks

    @property
    def state(self) -> State:
        """The state of the breaker."""
        if self._failures < self._threshold:
            return "closed"
        return "half-open" if self.is_recovering else "open"

    @property
    def is_open(self) -> bool:
        """Whether requests do without the store: the breaker is open or half-open."""
        return self._failures >= self._threshold

    @property
    def has_failures(self) -> bool:
        """Whether the last call has failed."""
        return self._failures > 0

    @property
    def is_recovering(self) -> bool:
        """Whether the breaker is half-open, and `recover` may go on."""
        began = self._recovery_began
        # A recovery whose event loop was stopped, or is that of the parent of a fork, is given up.
        return began is not None and monotonic() - began < MAX_RECOVERY

    @property
    def is_probing(self) -> bool:
        """Whether a probe is scheduled in the running event loop."""
        return asyncio.get_running_loop() in self._timers

    @property
    def is_stopped(self) -> bool:
        """Whether the breaker was stopped in the running event loop."""
        return asyncio.get_running_loop() in self._stopped

    def record_failure(self, error: Exception) -> None:
        """Count a failed call; at the threshold the breaker opens.

        Requests that failed in one call (their errors have the same cause) count once.
        """
        cause = error.__cause__
        if cause is not None and cause is self._last_cause:
            return
        self._last_cause = cause
        if not self._failures:
            logger.error("store unavailable: %s %r; %s [RL401]", error, self._name, self._unavailable)
            if self._on_change is not None:
                self._on_change(error)
        self._failures += 1
        self.schedule_probe()

    def reopen(self, error: Exception) -> None:
        """Count a failed call, and end a recovery that is under way: the store is unavailable again."""
        self.abandon_recovery()
        self.record_failure(error)

    def record_success(self) -> None:
        """Take note that a call has succeeded: the count begins again, or recovery begins."""
        if not self.is_open or self._recover is None:
            self._close()
        elif not self.is_recovering:
            self._recovery_began = monotonic()
            self._tasks.spawn(self._recover_and_close(self._recover))

    def abandon_recovery(self) -> None:
        """Leave the half-open state: the recovery that is under way runs in another process."""
        self._recovery_began = None

    def schedule_probe(self) -> None:
        """Probe the store in the running event loop after a pause, until it is available; only while it is open."""
        loop = asyncio.get_running_loop()
        waiting = not self.is_open or self.is_recovering or self._probe is None
        if not waiting and loop not in self._timers and loop not in self._stopped:
            # A timer refers to its loop, so a weak dictionary would keep closed loops.
            self._timers = {each: timer for each, timer in list(self._timers.items()) if not each.is_closed()}
            self._timers[loop] = loop.call_later(PROBE_INTERVAL, lambda: self._tasks.spawn(self.probe()))

    async def probe(self) -> bool:
        """Probe the store now, and return whether it is available; if it is not, schedule the next probe."""
        self._cancel_timer()
        try:
            if self._probe is not None:
                await self._probe()
        except Exception:  # noqa: BLE001 - the next probe may succeed
            self.schedule_probe()
            return False
        self.record_success()
        return True

    def start(self) -> None:
        """Allow probes in the running event loop (again)."""
        self._stopped.discard(asyncio.get_running_loop())

    def stop(self) -> None:
        """Probe no more in the running event loop."""
        self._cancel_timer()
        self._stopped.add(asyncio.get_running_loop())

    def _cancel_timer(self) -> None:
        timer = self._timers.pop(asyncio.get_running_loop(), None)
        if timer is not None:
            timer.cancel()

    async def _recover_and_close(self, recover: Callable[[], Awaitable[None]]) -> None:
        try:
            await recover()
            if self.is_recovering:
                self._close()
                if self._on_closed is not None:
                    await self._on_closed()
        finally:
            self._recovery_began = None
            self.schedule_probe()

    def _close(self) -> None:
        if self._failures:
            logger.warning("store available: %r; %s [RL402]", self._name, self._available)
            if self._on_change is not None:
                self._on_change(None)
        self._failures = 0
