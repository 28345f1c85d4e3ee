"""Refusals, remembered where they were given: until a limit has room again, nobody has to ask the store."""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ratelimit.charge import Charge
from ratelimit.decision import ServiceLimit

LONGEST: Final = 1_000_000
"""Microseconds that a refusal is remembered at most: so soon is an override, a refund or a settlement felt."""

MOST: Final = 10_000
"""Policies and keys that are remembered; beyond that the memory begins anew."""


class Refusals:
    """Remembers which keys of which policies are full, at what cost, and until when; by this process's clock.

    Only what time alone gives room again is remembered: rates, and quotas of a period. A slot or a level may come free
    at any moment. Another cost has another wait, and other terms (an override, a share) are another limit: those ask.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def known(self, charges: Sequence[Charge], now: int) -> list[ServiceLimit] | None:
        """Return what is known to refuse these charges at `now` (epoch microseconds), or `None`: then ask.

        Of a request that was refused before, the limits that had room are returned too, as they stood then.
        """
        if not self._known:
            return None
        found, before = dict[int, _Known](), None
        for place, charge in enumerate(charges):
            entry = self._known.get((charge.terms.policy, charge.key))
            if entry is not None and entry.told <= now < entry.until and entry.charge == charge:
                found[place] = entry
                if entry.charges is charges or entry.charges == charges:
                    before = entry
        if not found:
            return None
        if before is None:
            return [entry.limit.later((now - entry.told) / 1e6) for entry in found.values()]
        limits, passed = [], (now - before.told) / 1e6
        for place, limit in enumerate(before.limits):
            if place in found:
                limits.append(found[place].limit.later((now - found[place].told) / 1e6))
            elif not limit.retry_after:
                limits.append(limit.later(passed))
        return limits

    def note(self, charges: Sequence[Charge], limits: Sequence[ServiceLimit], now: int) -> None:
        """Remember which of these limits have refused; `now` is before the store was asked, so never too long.

        Nothing is remembered where one of them does not get room by time alone: it would be missing in the answer.
        """
        refusing = [
            (charge, limit)
            for charge, limit in zip(charges, limits, strict=True)
            if limit.retry_after and not limit.shadow
        ]
        if not all(_comes_back_by_itself(charge, limit) for charge, limit in refusing):
            return
        if len(self._known) >= MOST:
            self._known.clear()
        for charge, limit in refusing:
            until = now + min(LONGEST, math.floor(min(limit.retry_after, 1) * 1e6))
            self._known[limit.policy, charge.key] = _Known(now, until, charge, limit, charges, limits)

    def forget(self, charges: Iterable[Charge]) -> None:
        """Forget what was known of these, since something was given back."""
        for charge in charges:
            self._known.pop((charge.terms.policy, charge.key), None)


class _Known(NamedTuple):
    """A refusal: when it was told and until when it holds (epoch microseconds), and what was asked and told with it."""

    told: int
    until: int
    charge: Charge
    limit: ServiceLimit
    charges: Sequence[Charge]
    limits: Sequence[ServiceLimit]


def _comes_back_by_itself(charge: Charge, limit: ServiceLimit) -> bool:
    return limit.kind == "limit" or charge.terms.period is not None
