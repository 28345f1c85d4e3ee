"""What decides while the store is away: this worker's share of each policy, and what the store has to hear of it."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Final

from ratelimit.charge import Charge, Terms
from ratelimit.clock import Clock
from ratelimit.stores import Answer, MemoryStore, Op, Request

logger = logging.getLogger("ratelimit")

_MOST: Final = 100_000
"""Keys that are remembered, and keys of which units are kept for the store."""

_GRAINS: Final = 8
"""Parts of a window that units are kept by: all of a part count at its last charge."""

_QUOTA_GRAIN: Final = 60_000
"""Milliseconds that the units of a quota are kept by."""


class Fallback:
    """Decides on this worker's memory, so that the workers of a fleet together admit what the store would have.

    Each worker takes an equal share of every limit, and at least one. What the store last said of a key counts as used
    in it, shared likewise, so that an outage is no second budget; a worker that has not heard of a key begins with
    nothing used. What is admitted is kept, by key and moment, and handed over when the store is back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.workers = 1
        self._behind = 0
        self.epoch = 0
        self._memory = MemoryStore(clock=clock, max_keys=_MOST)
        self._told: dict[str, tuple[int, int]] = {}
        self._shares: dict[tuple[Terms, int], Terms] = {}
        self._origins: dict[Terms, Terms] = {}
        self._forget()

    def _forget(self) -> None:
        self.epoch += 1
        self._seeded: set[str] = set()
        self._spent: dict[tuple[str, int], tuple[Terms, int, int]] = {}
        self._overflowed = False

    @property
    def used(self) -> bool:
        """Whether there is something to hand over."""
        return bool(self._spent)

    def heard(self, charges: Sequence[Charge], answer: Answer) -> None:
        """Remember what the store says."""
        now = answer.now
        self._behind = answer.at - now // 1000
        told = self._told
        if len(told) >= _MOST:
            told.clear()
        for charge, numbers in zip(charges, answer.numbers, strict=True):
            told[charge.key] = charge.terms.usable - numbers[0], now

    def run(self, request: Request, *, keep: bool = True) -> tuple[Request, Answer]:
        """Decide, or correct, on this worker's share; return also the request as it was made of that.

        With `keep` the store hears later of what a correction has changed; of what was admitted it always does.
        """
        mine = [charge._replace(terms=self._share(charge)) for charge in request.charges]
        for charge, own in zip(request.charges, mine, strict=True):
            if charge.key not in self._seeded:
                self._seed(charge, own)
        asked = request._replace(charges=mine)
        answer = self._memory.run(asked)
        if request.op == Op.ADJUST and keep:
            self.keep(request.charges, request.at or answer.at)
        elif request.op in (Op.CHARGE, Op.HOLD):
            enforced = [told[2] for charge, told in zip(mine, answer.numbers, strict=True) if not charge.terms.shadow]
            if all(wait <= 0 for wait in enforced):
                made = zip(request.charges, answer.numbers, strict=True)
                self.keep([charge for charge, told in made if told[2] <= 0], answer.at)
        return asked, answer

    def keep(self, charges: Sequence[Charge], at: int) -> None:
        """Keep units that were admitted at `at` (ms by this process's clock) for the store."""
        for charge in charges:
            terms = self._origins.get(charge.terms, charge.terms)
            if terms.kind != "concurrency":
                grain = max(1, terms.span // _GRAINS) if terms.kind == "limit" else _QUOTA_GRAIN
                place = charge.key, at // grain
                _, units, latest = self._spent.get(place) or (terms, 0, 0)
                if units or len(self._spent) < _MOST:
                    self._spent[place] = terms, units + charge.cost, max(latest, at)
                elif not self._overflowed:
                    self._overflowed = True
                    logger.error("the store is away: more than %d keys were charged, and not all can be kept", _MOST)

    def hand_over(self) -> list[Request]:
        """Return what the store has to count, oldest first, and know no more of it than what counts here."""
        now, kept = self._clock() // 1000, sorted(self._spent.items(), key=lambda each: each[1][2])
        requests = []
        for (key, _), (terms, units, at) in kept:
            if units > 0 and (terms.kind != "limit" or at >= now - terms.span):
                requests.append(Request([Charge(terms, key, units)], Op.ADJUST, 0, self.there(at)))
        self._forget()
        return requests

    def there(self, at: int) -> int:
        """Return what the store's clock says at `at` by ours (ms)."""
        return max(1, at + self._behind)

    def origin(self, charge: Charge) -> Charge:
        """Return a charge as it is asked of the store."""
        return charge._replace(terms=self._origins.get(charge.terms, charge.terms))

    def _share(self, charge: Charge) -> Terms:
        terms, workers = self._origins.get(charge.terms, charge.terms), self.workers
        if workers <= 1 or terms.limit == 0:
            return terms
        limit = max(1, terms.limit // workers, min(abs(charge.cost), terms.limit))
        known = self._shares.get((terms, limit))
        if known is None:
            if len(self._shares) >= _MOST:
                self._shares.clear()
                self._origins.clear()
            share = None if terms.share is None else min(terms.share, max(1, terms.share // workers))
            allowance = max(0, terms.ceiling // workers - limit)
            known = dataclasses.replace(terms, limit=limit, allowance=allowance, share=share)
            object.__setattr__(known, "head", terms.head)  # The limit that is told is that of all workers.
            self._shares[terms, limit] = known
            self._origins[known] = terms
        return known

    def _seed(self, charge: Charge, own: Charge) -> None:
        """Count what the store said was used of a key, this worker's share of it, at the moment in which it did."""
        if charge.key not in self._told:
            return  # There is nothing to count, and so nothing to remember: callers may make up keys.
        self._seeded.add(charge.key)
        used, now = self._told[charge.key]
        over = charge.terms.kind == "limit" and now // 1000 < self._clock() // 1000 - charge.terms.span
        if used > 0 and not over and charge.terms.kind != "concurrency":
            # What was decided here in an earlier outage counts until its window or period is over.
            have = self._memory.run(Request([own], Op.USAGE)).numbers[0][0]
            lacking = math.ceil(used / self.workers) - have
            if lacking > 0:
                self._memory.run(Request([own._replace(cost=lacking)], Op.ADJUST, 0, now // 1000))
