"""The enforcer: decides charges by the store, and by each policy's failure mode where the store does not answer."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from threading import Lock
from typing import Final

from ratelimit._utils.fork import call_after_fork
from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.clock import Clock
from ratelimit.enforcement.circuit_breaker import CircuitBreaker
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.failure_modes import FailureModes, decision_of
from ratelimit.enforcement.listeners import Listeners
from ratelimit.enforcement.local_fallback import LocalFallback
from ratelimit.enforcement.observer import Observer
from ratelimit.enforcement.outbox import CorrectionOutbox
from ratelimit.enforcement.prefetch import PrefetchPool
from ratelimit.enforcement.rejection_cache import RejectionCache
from ratelimit.enforcement.settlement import COMPLETED, CorrectionTarget, Settlement
from ratelimit.enforcement.workers import WorkerRegistry
from ratelimit.errors import StoreError, StorePartiallyUnavailable
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, Outcome, StoreReply, StoreRequest, new_request

logger = logging.getLogger("ratelimit")

_CHARGING: Final = (Operation.CHARGE, Operation.ACQUIRE)
"""Operations whose rejections are cached, and that may spend prefetched units."""

RECOVERY_GRACE: Final = 0.5
"""Seconds for which a worker that has reached the store again still decides locally: the other workers reconnect."""

_CLOSE_ATTEMPTS: Final = 3
"""How often closing tries to send what is in the outbox."""


class Enforcer:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    A policy's failure mode: `local` enforces this worker's share in memory, `allow` does not count, `deny` refuses with
    503. After five consecutive failures the circuit breaker opens: no request waits for the store, which is probed in
    the background. What was admitted locally, and what was to be corrected meanwhile, is kept and sent once when the
    store is available. A rejection by the store is cached for up to a second.

    `settleable` are the policies and units that may be settled. With `prefetch`, units of hot keys are taken ahead.
    `key_prefix` begins all keys. After an outage, a worker among several decides locally for `recovery_grace` seconds
    more. `circuit_breaker`, `outbox`, `local_fallback`, `workers`, `rejections` and `prefetch_pool` are its parts.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settleable: AbstractSet[str],
        *,
        prefetch: bool = False,
        key_prefix: str = "rl",
        recovery_grace: float = RECOVERY_GRACE,
        observer: Observer | None = None,
    ) -> None:
        self._store, self._observer = store, observer or Observer(Listeners())
        self._clock, self._recovery_grace = clock, recovery_grace
        probe = EffectiveRate(policy="#probe", scope="global", limit=10**9, window=1)
        self._probe_charge = Charge(probe, f"{key_prefix}:{{any}}:#probe:1:*")
        self._tasks = BackgroundTasks()
        self.circuit_breaker = CircuitBreaker(
            store,
            unavailable="limits follow on_store_failure",
            available="limits are shared again",
            probe=self.probe,
            recover=self._recover,
            on_closed=lambda: self.outbox.flush(),  # noqa: PLW0108 - the outbox is made below
            tasks=self._tasks,
            on_change=self._observer.store_changed,
        )
        self.workers = WorkerRegistry(store, key_prefix, is_unavailable=lambda: self.circuit_breaker.is_open)
        self.local_fallback = LocalFallback(clock, lambda: self.workers.count)
        self.outbox = CorrectionOutbox(store, self.local_fallback, self._tasks, self.circuit_breaker.reopen)
        self.rejections = RejectionCache()
        self.prefetch_pool = PrefetchPool() if prefetch else None
        self.target = CorrectionTarget(self.correct, settleable, lambda: self.is_closed)
        self._failure_modes = FailureModes(self.local_fallback, self.target)
        call_after_fork(self.forget_parent)

    async def decide(
        self, charges: Sequence[Charge], operation: Operation = Operation.CHARGE, *, ask_store: bool = True
    ) -> Decision:
        """Decide the charges of one request; never raises `StoreError`.

        Without `ask_store` it does not wait: its caller has already waited for the store in vain.
        """
        request = new_request(charges, operation, self._undo_orphan)
        if (decision := self._decide_nowait(request)) is not None:
            return decision
        if not ask_store:
            return self._failure_modes.decide(request)
        now = self._clock()
        if self.prefetch_pool is not None and operation in _CHARGING:
            return await self._decide_with_prefetch(self.prefetch_pool, request, now)
        outcome = self._store.submit_soon(request, partial(self._finish, now, self._observer.began_call()))
        if outcome is None:
            return self._decide_outcome(now, request, await self._ask(request))
        try:
            return await outcome
        except asyncio.CancelledError:
            # It may have been decided in the same turn of the event loop.
            if operation in _CHARGING and outcome.done() and not outcome.cancelled() and outcome.exception() is None:
                outcome.result().void()
            raise

    def _decide_nowait(self, request: StoreRequest) -> Decision | None:
        """Decide where nothing has to be waited for: an in-process store, an open breaker, or a cached rejection."""
        reply = self._store.submit_nowait(request)
        if reply is not None:
            return decision_of(request, reply, self.target)
        if self.circuit_breaker.is_open:
            self.circuit_breaker.schedule_probe()
            return self._failure_modes.decide(request)
        if request.operation not in _CHARGING:
            return None
        rejected = self.rejections.lookup(request.charges, self._clock())
        return None if rejected is None else Decision.cached(rejected)

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Pass a request on as it is, for callers that need to know whether it was done: raises `StoreError`."""
        outcome = await self._call(request)
        if isinstance(outcome, StoreError):
            raise outcome
        self.rejections.invalidate(request.charges)
        return outcome

    async def delete(self, keys: AbstractSet[str]) -> int:
        """Empty these counters, and return how many were not empty; raises `StoreError`."""
        found = await self._store.delete(keys)
        self.rejections.forget(keys)
        if self.prefetch_pool is not None:
            self.prefetch_pool.forget(keys)
        return found

    def correct(self, request: StoreRequest) -> Awaitable[None]:
        """Start a correction, which goes on if the waiting caller is cancelled; a failure is logged."""
        if request.operation == Operation.ADJUST:
            self._observer.adjusted(request.charges)
        if self._store.submit_nowait(request) is not None:
            return COMPLETED
        self.rejections.invalidate(request.charges)
        return asyncio.shield(self._tasks.spawn(self._correct(request)))

    @property
    def is_closed(self) -> bool:
        """Whether the enforcer is closed in the running event loop, and renews no leases there."""
        return self.circuit_breaker.is_stopped

    def open(self) -> None:
        """Renew leases and probe the store in the running event loop (again)."""
        self.circuit_breaker.start()

    def forget_parent(self) -> None:
        """Leave to the parent of a fork what it has still to report, the units that it has prefetched, and its recovery."""
        self.outbox.clear()
        if self.prefetch_pool is not None:
            self.prefetch_pool.held.clear()
        self.circuit_breaker.abandon_recovery()
        self.target.lock = Lock()  # A thread of the parent may hold it.

    async def drain(self) -> None:
        """Wait until the corrections and probes of the running event loop have ended."""
        await self._tasks.drain()

    async def aclose(self) -> None:
        """Wait for corrections in flight, try once more to send what is kept, and close the store."""
        self.circuit_breaker.stop()
        await self._settle_all()
        await self._store.aclose()

    async def _call(self, request: StoreRequest) -> Outcome:
        """Return how a call to the store ended."""
        began = self._observer.began_call()
        try:
            outcome: Outcome = await self._store.submit(request)
        except StoreError as error:
            outcome = error
        if began:
            self._observer.called(request, outcome, began)
        return outcome

    async def _ask(self, request: StoreRequest) -> Outcome:
        self._note(request, outcome := await self._call(request))
        return outcome

    def _finish(self, now: int, began: float, request: StoreRequest, outcome: Outcome) -> Decision:
        if began:
            self._observer.called(request, outcome, began)
        self._note(request, outcome)
        return self._decide_outcome(now, request, outcome)

    def _decide_outcome(self, now: int, request: StoreRequest, outcome: Outcome) -> Decision:
        """Decide by what the store says, or without it, for a request of `now` (epoch µs)."""
        if isinstance(outcome, StoreError):
            # The store retries a correction once it has been sent; keeping it as well would apply it twice.
            keep = request.operation != Operation.ADJUST or outcome.was_not_sent
            return self._failure_modes.decide(request, keep=keep)
        decision = decision_of(request, outcome, self.target)
        if decision.violated and request.operation != Operation.PEEK and not outcome.is_contested:
            self.rejections.store(request.charges, decision.limits, now)
        return decision

    async def _decide_with_prefetch(self, pool: PrefetchPool, request: StoreRequest, now: int) -> Decision:
        try:
            attempt = await pool.charge_with(self._ask, request, now)
        except StoreError:
            return self._failure_modes.decide(request)
        decision = attempt.decision(request, self.target)
        if decision.violated and not attempt.is_contested:
            self.rejections.store(request.charges, decision.limits, now)
        return decision

    def _note(self, request: StoreRequest, outcome: Outcome) -> None:
        """Take note of how a call to the store ended."""
        if isinstance(outcome, StoreError):
            self._failed(outcome)
            self.outbox.enqueue_release(request.permit_releases, request.holder)
        else:
            self._replied(request, outcome)

    async def _correct(self, request: StoreRequest) -> None:
        if self.circuit_breaker.is_open:
            self.outbox.enqueue(request)
            return
        outcome = await self._call(request)
        if isinstance(outcome, StoreError):
            # The store retries a correction once it has been sent. A permit may be released twice without harm.
            self._failed(outcome)
            if outcome.was_not_sent:
                self.outbox.enqueue(request)
            else:
                self.outbox.enqueue_release(request.charges, request.holder)
        else:
            # A concurrent request may have cached a rejection before this write completed.
            self.rejections.invalidate(request.charges)
            self._replied(request, outcome)

    def _undo_orphan(self, request: StoreRequest, reply: StoreReply | None) -> None:
        """Give back what was charged for a caller that was cancelled before the reply arrived.

        Units that were already spent, and are only counted, stay counted. Without a reply, permits are released later.
        """
        if reply is None:
            self.outbox.enqueue_release(request.permit_releases, request.holder)
        elif request.operation in _CHARGING and not request.is_refused(reply):
            Settlement(self.target, request, reply).void()

    def _failed(self, error: StoreError) -> None:
        """Count a failure. An unavailable part of a Cluster does not count, since the other parts are used."""
        if not isinstance(error, StorePartiallyUnavailable):
            self.circuit_breaker.record_failure(error)

    def _replied(self, request: StoreRequest, reply: StoreReply) -> None:
        """Take note of a reply. Only a call that wrote ends an outage: a store that cannot be written still refuses."""
        self.local_fallback.observe(request.charges, reply)
        if len(self.rejections) and request.has_written(reply):  # The waits may be longer now.
            self.rejections.invalidate(request.charges)
        breaker = self.circuit_breaker
        if (breaker.has_failures or not self.outbox.is_empty) and request.has_written(reply):
            breaker.record_success()
            if not breaker.is_open:
                self.outbox.flush_soon()

    async def probe(self) -> None:
        """Write to a dedicated probe key to check that the store accepts writes; raises `StoreError`."""
        await self._store.submit(StoreRequest([self._probe_charge], Operation.CHARGE))

    async def _recover(self) -> None:
        """Report local usage to the store, and among several workers decide locally for the grace period meanwhile.

        Otherwise the first worker to reconnect could use capacity that others have used locally and not yet reported.
        """
        if self.workers.count > 1:
            is_over = lambda: not self.circuit_breaker.is_recovering or self.is_closed  # noqa: E731
            await self.outbox.flush_for(self._recovery_grace, is_over)

    async def _settle_all(self) -> None:
        for _ in range(_CLOSE_ATTEMPTS):
            await self._store.drain()  # A call in flight may still be in doubt.
            resolved = await self._store.resolve_in_doubt()
            await self.drain()
            if resolved and self.outbox.is_empty:
                return
            if await self.circuit_breaker.probe():
                await self.drain()
                # The flush goes on if the closing caller is cancelled: the outbox is empty from its start.
                await asyncio.shield(self._tasks.spawn(self.outbox.flush()))
        if not self.outbox.is_empty or not await self._store.resolve_in_doubt():
            logger.error("closed while the store is unavailable: what was charged since then is not written [RL410]")
