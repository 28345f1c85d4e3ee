"""Units of hot keys that this worker has taken ahead: it spends them itself, and asks the store once for many."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ratelimit.charge import Charge, Terms
from ratelimit.decision import ServiceLimit

_PART: Final = 16
"""At most this part of what remains is taken ahead, so that near the limit every unit is asked for by itself."""

_MOST: Final = 10_000
"""Keys of which something is held; beyond that the memory begins anew, and what was held is lost."""


@dataclass(slots=True)
class _Held:
    """What is held of one key, under which terms, and what the store said of it.

    `told` and `until` are epoch microseconds of this process's clock, `at` the store's own instant (ms). Units are
    counted in the slot in which they were taken, and are spent only as long as it is open.
    """

    terms: Terms
    units: int
    told: int
    until: int
    at: int
    limit: ServiceLimit
    asking: bool = False


@dataclass(slots=True)
class Trip:
    """One request on its way: what is spent of what is held, and what the store is asked for, with more for later."""

    charges: Sequence[Charge]
    now: int
    spent: dict[int, _Held] = field(default_factory=dict)
    asked: list[Charge] = field(default_factory=list)
    asking: list[_Held] = field(default_factory=list)

    @property
    def at(self) -> int:
        """The store's own instant now, as far as what is held can tell."""
        held = next(iter(self.spent.values()))
        return held.at + (self.now - held.told) // 1000

    def give_back(self) -> None:
        """Put back what was spent: the request was refused elsewhere, or went away."""
        for place, held in self.spent.items():
            held.units += self.charges[place].cost
        self.spent = {}

    def end(self) -> None:
        """Let others take ahead again."""
        for held in self.asking:
            held.asking = False


class Ahead:
    """Takes units of hot keys ahead, where their limit has a `lease`.

    What is taken counts as spent from that moment, so nothing is ever admitted beyond a limit; what is not spent while
    its slot is open is lost until the slot leaves the window. A key is hot when it is asked for twice in a slot.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Held] = {}

    def take(self, charges: Sequence[Charge], now: int, *, more: bool = True) -> Trip:
        """Spend what is held of these, and say what the store has to be asked for; with `more`, for later too."""
        trip = Trip(charges, now)
        for place, charge in enumerate(charges):
            held = self._held.get((charge.terms.policy, charge.key)) if charge.terms.ahead else None
            if held is None or held.terms is not charge.terms or not held.told <= now < held.until:
                trip.asked.append(charge)
            elif charge.cost <= held.units:
                held.units -= charge.cost
                trip.spent[place] = held
            else:
                extra = min(charge.terms.ahead, held.limit.remaining // _PART) if more and not held.asking else 0
                if extra:
                    held.asking = True
                    trip.asking.append(held)
                trip.asked.append(charge._replace(cost=charge.cost + extra))
        return trip

    def arrive(self, trip: Trip, limits: Sequence[ServiceLimit], at: int) -> list[ServiceLimit]:
        """Keep what was taken ahead, where it was, and return the limits of all charges as they stand."""
        told, asked = iter(limits), iter(trip.asked)
        # What one limit refuses, none has charged: nothing was taken ahead either.
        admitted = not any(limit.retry_after and not limit.shadow for limit in limits)
        found = []
        for place, charge in enumerate(trip.charges):
            if place in trip.spent:
                held = trip.spent[place]
                found.append(held.limit.later((trip.now - held.told) / 1e6)._replace(cost=charge.cost))
            else:
                limit = next(told)._replace(cost=charge.cost)
                extra = next(asked).cost - charge.cost
                if charge.terms.ahead and admitted:
                    self._keep(charge, limit, extra, trip.now, at)
                found.append(limit)
        return found

    def _keep(self, charge: Charge, limit: ServiceLimit, units: int, now: int, at: int) -> None:
        if len(self._held) >= _MOST:
            self._held.clear()
        # With something remaining, the limit is reset when the slot of now has left; until it closes units may be
        # spent. The instant is from before the store was asked, so that it is never too late.
        open_for = round(limit.reset_after * 1000) - charge.terms.span if limit.remaining else 0
        until, key = now + open_for * 1000, (charge.terms.policy, charge.key)
        held = self._held.get(key)
        if held is not None and held.terms is charge.terms and now < held.until:
            units, until = units + held.units, min(until, held.until)
        self._held[key] = _Held(charge.terms, units, now, until, at, limit)
