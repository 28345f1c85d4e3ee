"""Histories of requests to a store, by lot."""

import random

from ratelimit.charge import Charge, Terms
from ratelimit.stores import Answer, Op, Request
from ratelimit.testing.charges import fresh_key, pace, quota, slots, terms

_WAITS = [0, 0, 1, 15, 16, 17, 499, 938, 999, 1000, 1016, 2033, 30_000, 60_000, 61_000]
_POLICIES: list[list[Terms]] = [
    [terms(3, 1, policy="a"), terms(10, 1, 5, policy="a"), terms(200, 1, 50, policy="a", share=100)],
    [terms(60, 60, 15, policy="b"), terms(64, 60, policy="b"), terms(65, 60, 32, policy="b")],
    [terms(5, 60, shadow=True, policy="c"), terms(10**9, 60, 10**8, policy="c", shadow=True)],
    [quota(50, "hour"), quota(300, "hour", share=150)],
    [quota(20, None)],
    [slots(2, 500), slots(3, 2000, share=1)],
    [pace(100), pace(7), pace(100, 1, 50)],
]


class History:
    """Requests by lot, some of which correct what an earlier one has charged."""

    def __init__(self, seed: int) -> None:
        self.lot = random.Random(seed)  # noqa: S311 - a lot that can be drawn again
        self.keys = [fresh_key() for _ in _POLICIES]
        self.holders = 0
        self.made: list[tuple[Request, Answer]] = []

    def wait(self) -> int:
        """Return milliseconds until the next request."""
        return self.lot.choice(_WAITS)

    def request(self) -> Request:
        """Return the next request."""
        op = self.lot.choice([Op.HOLD] * 6 + [Op.PEEK, Op.USAGE, Op.RELEASE, Op.ADJUST, Op.ADJUST])
        if op == Op.ADJUST and self.made:
            return self._correction(*self.lot.choice(self.made[-4:]))
        if op == Op.RELEASE:
            return Request([self._charge(self.lot.choice([0, 1, 3, 4]), -self.lot.randint(1, 5))], op)
        self.holders += 1
        chosen = sorted(self.lot.sample(range(len(_POLICIES)), self.lot.randint(1, 4)))
        charges = [self._charge(number, 1 if number > 4 else self.lot.randint(1, 20)) for number in chosen]
        return Request(charges, Op.HOLD if op == Op.ADJUST else op, self.holders)

    def note(self, request: Request, answer: Answer) -> None:
        """Take note of what came of it, to be corrected later."""
        if request.op == Op.HOLD and all(told[2] <= 0 for told in answer.numbers):
            self.made.append((request, answer))

    def _charge(self, number: int, cost: int) -> Charge:
        return Charge(self.lot.choice(_POLICIES[number]), self.keys[number], cost)

    def _correction(self, made: Request, answer: Answer) -> Request:
        for one, told in zip(made.charges, answer.numbers, strict=True):
            if one.terms.kind == "pace":
                return Request([one._replace(cost=-1)], Op.ADJUST, told[0])
        changed = [
            one._replace(cost=-1 if one.terms.kind == "concurrency" else self.lot.randint(-9, 9))
            for one in made.charges
        ]
        return Request(changed, Op.ADJUST, made.holder, answer.at)
