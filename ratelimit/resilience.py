"""What a request gets while the store is away: each policy's own failure mode."""

import logging
from collections.abc import Sequence
from typing import Final

from ratelimit.clock import Clock
from ratelimit.decision import Charge, Decision, ServiceLimit
from ratelimit.errors import StoreError
from ratelimit.stores import MemoryStore, Store

logger = logging.getLogger("ratelimit")


_PATIENCE: Final = 5
"""Failures in a row after which requests no longer wait for the store."""

_PAUSE: Final = 1_000_000
"""Microseconds after which one request tries the store again."""


class Guard:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    `local` counts on this worker's memory, `allow` does not count, `deny` refuses with 503. After five failures in a
    row no request waits for the store, but one a second, which tries it. Each change between away and back is one
    line in the log.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._local = MemoryStore(clock=clock)
        self._failures = 0
        self._next_try = 0

    async def decide(self, charges: Sequence[Charge], *, peek: bool = False) -> Decision:
        """Decide the charges of one request; never raises `StoreError`."""
        if self._failures >= _PATIENCE and not self._may_try():
            return self._degraded(charges, peek=peek)
        try:
            limits = await self._store.charge(charges, peek=peek)
        except StoreError as error:
            self._note_failure(error)
            return self._degraded(charges, peek=peek)
        if self._failures:
            self._note_success()
        return Decision.of(limits)

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    def _may_try(self) -> bool:
        now = self._clock()
        # A wall clock that was set back must not keep the store away.
        if self._next_try - _PAUSE <= now < self._next_try:
            return False
        self._next_try = now + _PAUSE
        return True

    def _degraded(self, charges: Sequence[Charge], *, peek: bool) -> Decision:
        if any(charge.terms.on_store_failure == "deny" and not charge.terms.shadow for charge in charges):
            return Decision.unavailable()
        local = [charge for charge in charges if charge.terms.on_store_failure == "local"]
        limits: Sequence[ServiceLimit] = self._local.decide(local, peek=peek) if local else ()
        return Decision.of(limits, degraded=True)

    def _note_failure(self, error: StoreError) -> None:
        if not self._failures:
            logger.error("store away: %s %r; limits go by on_store_failure", error, self._store)
        self._failures += 1
        self._next_try = self._clock() + _PAUSE

    def _note_success(self) -> None:
        logger.warning("store back: %r; limits are shared again", self._store)
        self._failures = 0
