"""What a request gets while the store is away: each policy's own failure mode."""

import logging
from collections.abc import Sequence

from ratelimit.clock import Clock
from ratelimit.decision import Charge, Decision, ServiceLimit
from ratelimit.errors import StoreError
from ratelimit.stores import MemoryStore, Store

logger = logging.getLogger("ratelimit")


class Guard:
    """Asks the store, and decides by the policies' failure modes where it does not answer.

    `local` counts on this worker's memory, `allow` does not count, `deny` refuses with 503. Each change between away
    and back is one line in the log.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._local = MemoryStore(clock=clock)
        self._away = False

    async def decide(self, charges: Sequence[Charge], *, peek: bool = False) -> Decision:
        """Decide the charges of one request; never raises `StoreError`."""
        try:
            limits = await self._store.charge(charges, peek=peek)
        except StoreError as error:
            self._note(error)
            return self._degraded(charges, peek=peek)
        if self._away:
            self._note(None)
        return Decision.of(limits)

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    def _degraded(self, charges: Sequence[Charge], *, peek: bool) -> Decision:
        if any(charge.terms.on_store_failure == "deny" and not charge.terms.shadow for charge in charges):
            return Decision.unavailable()
        local = [charge for charge in charges if charge.terms.on_store_failure == "local"]
        limits: Sequence[ServiceLimit] = self._local.decide(local, peek=peek) if local else ()
        return Decision.of(limits, degraded=True)

    def _note(self, error: StoreError | None) -> None:
        if error is not None and not self._away:
            logger.error("store away (%s: %s); limits go by on_store_failure", type(error).__name__, error)
        elif error is None:
            logger.warning("store back; limits are shared again")
        self._away = error is not None
