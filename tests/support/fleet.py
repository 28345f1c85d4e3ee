"""Several workers that share one store."""

from collections.abc import Sequence

from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.model.charge import Charge
from ratelimit.testing import ManualClock
from tests.support.stores import RemoteStore, window_limit

_HOUR_US = 3_600_000_000


class Fleet:
    """A remote store, whose clock is an hour ahead, and workers that share it, all on one manual clock."""

    def __init__(self, workers: int) -> None:
        self.clock = ManualClock()
        self.store = RemoteStore(self.clock, ahead_us=_HOUR_US)
        self.enforcers = [Enforcer(self.store, self.clock, {"p", "q"}, recovery_grace=0.0) for _ in range(workers)]
        for enforcer in self.enforcers:
            enforcer.workers.count = workers

    async def admit(self, charge: Charge, times: int, workers: Sequence[int] = ()) -> int:
        """Let the workers (all, or these) ask in turn, `times` together, and return the units that they admit."""
        chosen = [self.enforcers[n] for n in workers] or self.enforcers
        decisions = [await chosen[n % len(chosen)].decide([charge]) for n in range(times)]
        return sum(charge.cost for decision in decisions if decision.allowed)

    async def lose_store(self, calls: int = 5) -> None:
        """Take the store down, and let every worker fail `calls` times: five open its circuit breaker."""
        self.store.is_down = True
        for enforcer in self.enforcers:
            for _ in range(calls):
                await enforcer.decide([Charge(window_limit(10**6), "other")])

    async def recover_store(self) -> None:
        """Bring the store back, and let every worker find it and report to it."""
        self.store.is_down = False
        for enforcer in self.enforcers:
            await enforcer.circuit_breaker.probe()
            await enforcer.drain()
