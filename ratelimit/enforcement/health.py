"""Health: how a limiter and its store are."""

from dataclasses import dataclass
from typing import Literal

from ratelimit.clock import monotonic
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.errors import StoreError


@dataclass(slots=True, frozen=True, kw_only=True)
class Health:
    """How a limiter is now. It serves requests in any state: `ok` says that it counts in its store.

    `store` is `ok` or `unavailable`, `round_trip` the seconds that one call took (`None`: it failed), `breaker` the state of
    the circuit breaker, `pending` the corrections that wait for the store, `workers` the workers that share the limits.
    """

    ok: bool
    store: Literal["ok", "unavailable"]
    round_trip: float | None
    breaker: Literal["closed", "open", "half-open"]
    pending: int
    workers: int
    error: str | None = None


async def check_health(enforcer: Enforcer) -> Health:
    """Return how the store is, by one call to it; never fails."""
    began, error = monotonic(), None
    try:
        await enforcer.probe()
    except StoreError as failed:
        error = str(failed)
    breaker = enforcer.circuit_breaker
    return Health(
        ok=error is None and not breaker.is_open,
        store="ok" if error is None else "unavailable",
        round_trip=None if error is not None else monotonic() - began,
        breaker=breaker.state,
        pending=len(enforcer.outbox) + enforcer.local_fallback.has_unreported,
        workers=enforcer.workers.count,
        error=error,
    )
