"""What a worker does with the store once a second, beside its requests."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ratelimit.enforcement.circuit_breaker import CircuitBreaker
from ratelimit.stores.base import Store

logger = logging.getLogger("ratelimit")


class BackgroundPolls:
    """Calls several actions, one after the other; the log has a line when they begin to fail, and when they work again.

    `is_reported` says that the log has already that the store is unavailable. The first poll warns of a server that evicts
    counters, where the login may ask for it.
    """

    def __init__(
        self, store: Store, actions: Sequence[Callable[[], Awaitable[Any]]], is_reported: Callable[[], bool]
    ) -> None:
        self._store, self._has_asked = store, False
        self._actions, self._is_reported = [*actions, self._warn_of_evictions], is_reported
        self._breaker = CircuitBreaker(
            store,
            unavailable="overrides, blocks, statistics or the number of workers may be out of date",
            available="overrides, blocks, statistics and the number of workers are up to date",
            threshold=1,
        )

    async def run(self) -> None:
        """Call all actions; never fails: a login may have the rights for one of them alone, and the next poll may succeed."""
        failure: Exception | None = None
        for action in self._actions:
            try:
                await action()
            except Exception as error:  # noqa: BLE001 - logged by the breaker
                failure = failure or error
        if failure is None:
            self._breaker.record_success()
        elif not self._is_reported():
            self._breaker.record_failure(failure)

    async def _warn_of_evictions(self) -> None:
        policy = None if self._has_asked else await self._store.evicts_by()
        self._has_asked = True
        if policy is not None:
            logger.warning(
                "the store evicts counters when its memory is full (maxmemory-policy %s): they begin at zero then [RL413]",
                policy,
            )
