"""Take what is left: as many requests of those that were asked for as all policies have room for."""

from collections.abc import Awaitable, Callable
from typing import Final

from ratelimit.enforcement.decision import Decision

_ATTEMPTS: Final = 5
"""Charges that are tried: other callers may take what was left meanwhile."""


async def take_at_most(
    wanted: int, decide: Callable[[int], Awaitable[Decision]], fits: Callable[[int], Awaitable[bool]]
) -> Decision:
    """Decide for as many requests as are left, up to `wanted`, burst included; the decision tells how many were `granted`.

    `decide` charges a number of requests, all or none; `fits` says whether it would. Where nothing is left, the refusal of
    one request is returned.
    """
    for _ in range(_ATTEMPTS):
        decision = await decide(wanted)
        decision.granted = wanted if decision.allowed else 0
        if decision.allowed or decision.degraded or wanted <= 1:
            break
        left = min((limit.remaining * wanted // (limit.cost or 1) for limit in decision.violated), default=0)
        wanted = max(1, await _most(min(left, wanted - 1), wanted - 1, fits))
    return decision


async def _most(least: int, most: int, fits: Callable[[int], Awaitable[bool]]) -> int:
    """Return the largest number that fits: what remains does, and perhaps more, since burst is not in what remains."""
    if least >= most or not await fits(least + 1):
        return least
    least += 1
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if await fits(middle) else (least, middle - 1)
    return least
