"""The core: who asks for what, charged in one step."""

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ratelimit.clock import Clock, system_clock
from ratelimit.decision import Charge, Decision
from ratelimit.errors import ConfigurationError
from ratelimit.identity import Identity
from ratelimit.plan import UNKNOWN, Plan
from ratelimit.rate import MAX_LIMIT
from ratelimit.resilience import Guard
from ratelimit.settings import RateLimitSettings
from ratelimit.stores import Store, open_store

logger = logging.getLogger("ratelimit")


class Limiter:
    """Charge every limit that applies to an identity at an endpoint, all of them or none, in one atomic step.

    `store` is used instead of the one that the settings name; `clock` returns integer microseconds since the epoch.
    Constructing connects to nothing, and nothing here ever raises because of a store: a request that finds it away is
    decided by the policies' failure modes. Use it as an async context manager, or call `aclose` at the end.
    """

    def __init__(self, settings: RateLimitSettings, store: Store | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.plan = Plan(settings)
        self.clock: Clock = clock or system_clock
        if store is None:
            store = open_store(settings.store, clock=clock, timeout=settings.store_timeout)
        self._guard = Guard(store, self.clock)

    async def check(
        self, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN, cost: int = 1
    ) -> Decision:
        """Charge `cost` requests and return the decision.

        `endpoint` is the route template, `"*"` for none. Each policy takes `cost` times its own cost, in units. An
        exempt endpoint, or one that no policy applies to, is allowed without limits. A `cost` that is no positive
        integer raises `ConfigurationError`.
        """
        _check_cost(cost)
        return await self.decide(self._charges(identity, method, endpoint, cost))

    async def peek(self, identity: Identity, *, method: str = "GET", endpoint: str = UNKNOWN) -> Decision:
        """Return the decision that one more request would get, charging nothing; `remaining` is as it stands."""
        return await self.decide(self._charges(identity, method, endpoint, 1), peek=True)

    async def decide(self, charges: Sequence[Charge], *, peek: bool = False) -> Decision:
        """Decide charges that are already made out, as `plan` makes them; all doors end here."""
        if not charges:
            return Decision(True)
        decision = await self._guard.decide(charges, peek=peek)
        for limit in decision.limits:
            if limit.shadow and limit.retry_after > 0:
                logger.info("shadow policy %s would have refused for %.3f s", limit.policy, limit.retry_after)
        return decision

    async def aclose(self) -> None:
        """Close the store; may be called twice."""
        await self._guard.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _charges(self, identity: Identity, method: str, endpoint: str, cost: int) -> list[Charge]:
        return self.plan.rules(self.plan.endpoint(method.upper(), endpoint)).charges(identity, cost)


def _check_cost(cost: object) -> None:
    if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= MAX_LIMIT:
        raise ConfigurationError(f"cost: must be a positive integer, got {cost!r}")
