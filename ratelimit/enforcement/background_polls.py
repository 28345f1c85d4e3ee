"""What a worker does with the store once a second, beside its requests."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ratelimit.enforcement.circuit_breaker import CircuitBreaker
from ratelimit.stores.base import Store


class BackgroundPolls:
    """Calls several actions, one after the other; the log has a line when they begin to fail, and when they work again.

    `is_reported` says that the log has already that the store is unavailable.
    """

    def __init__(
        self, store: Store, actions: Sequence[Callable[[], Awaitable[Any]]], is_reported: Callable[[], bool]
    ) -> None:
        self._actions, self._is_reported = actions, is_reported
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
