"""Generates random requests to a store."""

import random
from typing import Final

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import concurrency_limit, fresh_key, pace_limit, quota_limit, window_limit

_PAUSES_MS: Final = [0, 0, 1, 15, 16, 17, 499, 938, 999, 1000, 1016, 2033, 30_000, 60_000, 61_000]
"""Milliseconds between two requests: several lie at or beside the ends of buckets and windows."""

_OPERATIONS: Final = [
    *[Operation.ACQUIRE] * 6,
    Operation.PEEK,
    Operation.USAGE,
    Operation.RELEASE,
    Operation.ADJUST,
    Operation.ADJUST,
]
_LIMITS: Final[list[list[EffectiveLimit]]] = [
    [
        window_limit(3, 1, policy="a"),
        window_limit(10, 1, 5, policy="a"),
        window_limit(200, 1, 50, policy="a", share=100),
    ],
    [window_limit(60, 60, 15, policy="b"), window_limit(64, 60, policy="b"), window_limit(65, 60, 32, policy="b")],
    [window_limit(5, 60, shadow=True, policy="c"), window_limit(10**9, 60, 10**8, policy="c", shadow=True)],
    [quota_limit(50, "hour"), quota_limit(300, "hour", share=150)],
    [quota_limit(20, None)],
    [concurrency_limit(2, 500), concurrency_limit(3, 2000, share=1)],
    [pace_limit(100), pace_limit(7), pace_limit(100, 1, 50)],
]
"""The limits that are charged, by counter: one counter is charged under several limits in turn."""

_RELEASABLE: Final = [0, 1, 3, 4]
"""Counters whose units may be released."""

_FIRST_SINGLE: Final = 5
"""Counters from this one on are charged one unit at a time: permits and reservations."""

_CORRECTED: Final = 4
"""How many of the last admitted requests may be corrected."""


class RequestGenerator:
    """Generates random requests, some of which correct the charges of an earlier one; equal seeds, equal requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it has to be repeatable
        self._keys = [fresh_key() for _ in _LIMITS]
        self._last_holder = 0
        self._admitted: list[tuple[StoreRequest, StoreReply]] = []

    def pause_ms(self) -> int:
        """Return the milliseconds until the next request."""
        return self._random.choice(_PAUSES_MS)

    def request(self) -> StoreRequest:
        """Return the next request."""
        operation = self._random.choice(_OPERATIONS)
        if operation == Operation.ADJUST and self._admitted:
            return self._correction(*self._random.choice(self._admitted[-_CORRECTED:]))
        if operation == Operation.RELEASE:
            charge = self._charge(self._random.choice(_RELEASABLE), -self._random.randint(1, 5))
            return StoreRequest([charge], operation)
        self._last_holder += 1
        counters = sorted(self._random.sample(range(len(_LIMITS)), self._random.randint(1, 4)))
        charges = [
            self._charge(counter, 1 if counter >= _FIRST_SINGLE else self._random.randint(1, 20))
            for counter in counters
        ]
        if operation == Operation.ADJUST:
            operation = Operation.ACQUIRE
        return StoreRequest(charges, operation, self._last_holder)

    def record(self, request: StoreRequest, reply: StoreReply) -> None:
        """Remember the reply to a request, which may be corrected later if it was admitted."""
        if request.operation == Operation.ACQUIRE and request.has_written(reply):
            self._admitted.append((request, reply))

    def _charge(self, counter: int, cost: int) -> Charge:
        return Charge(self._random.choice(_LIMITS[counter]), self._keys[counter], cost)

    def _correction(self, admitted: StoreRequest, reply: StoreReply) -> StoreRequest:
        for charge, (start, _, _) in zip(admitted.charges, reply.readings, strict=True):
            if charge.limit.kind == "pace":
                return StoreRequest([charge._replace(cost=-1)], Operation.ADJUST, start)
        changes = [
            charge._replace(cost=-1 if charge.limit.kind == "concurrency" else self._random.randint(-9, 9))
            for charge in admitted.charges
        ]
        return StoreRequest(changes, Operation.ADJUST, admitted.holder, reply.store_ms)
