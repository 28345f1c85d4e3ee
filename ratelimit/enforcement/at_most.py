"""Take what is left: as many requests of those that were asked for as all policies have room for."""

from collections.abc import Awaitable, Callable
from typing import Final

from ratelimit.enforcement.decision import Decision

_ATTEMPTS: Final = 5
"""Charges that are tried: other callers may take what was left meanwhile."""


async def take_at_most(wanted: int, decide: Callable[[int], Awaitable[Decision]]) -> Decision:
    """Decide for as many requests as are left, up to `wanted`; the decision tells how many were `granted`.

    `decide` charges a number of requests, all or none. Where nothing is left, its refusal is returned.
    """
    for _ in range(_ATTEMPTS):
        decision = await decide(wanted)
        decision.granted = wanted if decision.allowed else 0
        left = min((limit.remaining * wanted // (limit.cost or 1) for limit in decision.violated), default=0)
        if decision.allowed or left <= 0:
            break
        wanted = min(wanted - 1, left)
    return decision
