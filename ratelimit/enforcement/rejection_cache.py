"""Cache of rejections: until a limit has room again, its refusals are answered without a call to the store."""

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import ServiceLimit

MAX_AGE_US: Final = 1_000_000
"""Microseconds that a rejection is cached at most: overrides, refunds and settlements take effect within that time."""

MAX_REJECTIONS: Final = 10_000
"""Policies and keys whose rejections are cached."""


class _CachedRejection(NamedTuple):
    """A rejection: when it was made and until when it holds (epoch µs), the charge and its limit, and all of the request."""

    rejected_at: int
    until: int
    charge: Charge
    limit: ServiceLimit
    charges: Sequence[Charge]
    limits: Sequence[ServiceLimit]


class RejectionCache:
    """Knows which keys of which policies are full, at what cost, and until when (by this process's clock).

    Only limits that get room by time alone are cached: rates, and quotas of a period. A permit or a level may become
    free at any moment. Another cost has another wait, and another effective limit (an override, a share) is another
    limit: those requests ask the store.
    """

    def __init__(self) -> None:
        self._cache: BoundedCache[tuple[str, str], _CachedRejection] = BoundedCache(MAX_REJECTIONS)

    def __len__(self) -> int:
        return len(self._cache)

    def lookup(self, charges: Sequence[Charge], now: int) -> list[ServiceLimit] | None:
        """Return the limits that refuse these charges at `now` (epoch µs), or `None`: ask the store.

        If the same request was refused before, the limits that had room are returned too, as they stood then.
        """
        if not self._cache:
            return None
        found, earlier = dict[int, _CachedRejection](), None
        for index, charge in enumerate(charges):
            cached = self._cache.get((charge.limit.policy, charge.key))
            if cached is not None and cached.rejected_at <= now < cached.until and cached.charge == charge:
                found[index] = cached
                if cached.charges is charges or cached.charges == charges:
                    earlier = cached
        if not found:
            return None
        if earlier is None:
            return [cached.limit.after((now - cached.rejected_at) / 1e6) for cached in found.values()]
        limits, passed = [], (now - earlier.rejected_at) / 1e6
        for index, limit in enumerate(earlier.limits):
            if index in found:
                cached = found[index]
                limits.append(cached.limit.after((now - cached.rejected_at) / 1e6))
            elif not limit.retry_after:
                limits.append(limit.after(passed))
        return limits

    def store(self, charges: Sequence[Charge], limits: Sequence[ServiceLimit], now: int) -> None:
        """Cache the rejections among these limits; `now` is from before the call, so they never hold for too long.

        Nothing is cached if one of them does not get room by time alone: it would be missing in the answer.
        """
        rejections = [
            (charge, limit)
            for charge, limit in zip(charges, limits, strict=True)
            if limit.retry_after and not limit.shadow
        ]
        if not all(_clears_by_time(charge, limit) for charge, limit in rejections):
            return
        for charge, limit in rejections:
            until = now + min(MAX_AGE_US, math.floor(min(limit.retry_after, 1) * 1e6))
            self._cache[limit.policy, charge.key] = _CachedRejection(now, until, charge, limit, charges, limits)

    def invalidate(self, charges: Iterable[Charge]) -> None:
        """Drop the rejections of these charges, because something was given back."""
        for charge in charges:
            self._cache.pop((charge.limit.policy, charge.key), None)

    def forget(self, keys: AbstractSet[str]) -> None:
        """Drop all rejections of these keys, because their counters were emptied."""
        for entry in [entry for entry in self._cache if entry[1] in keys]:
            del self._cache[entry]


def _clears_by_time(charge: Charge, limit: ServiceLimit) -> bool:
    return limit.kind == "limit" or charge.limit.period is not None
