"""The parts of a limiter; `tests/unit/test_limiter.py` and the behaviour tests have the rest."""

from ratelimit import Identity, Limit, Limiter, Listener, MemoryStore, RateLimitSettings
from ratelimit.testing import ManualClock


async def test_nothing_to_charge_is_admitted(clock: ManualClock) -> None:
    """Without a call to the store."""
    store = MemoryStore(clock=clock)
    limiter = Limiter(RateLimitSettings(), store, clock)
    assert (await limiter.decide([])).allowed
    assert len(store) == 0


def test_a_listener_gets_to_know_its_limiter(clock: ManualClock) -> None:
    """Once, when it is made."""

    class Attached(Listener):
        limiter: object = None

        def attach(self, limiter: object) -> None:
            self.limiter = limiter

    listener = Attached()
    limiter = Limiter(RateLimitSettings(), MemoryStore(clock=clock), clock, listeners=[listener])
    assert listener.limiter is limiter


async def test_without_listeners_decisions_are_not_timed(clock: ManualClock) -> None:
    """A request pays for nothing that is not asked for."""
    settings = RateLimitSettings(limits=[Limit(name="a", rate="9/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    assert not limiter.observer.is_timing
    assert (await limiter.check(Identity(token="t"))).allowed
    assert limiter.observer.began() == 0.0
    limiter.observer.count()
    assert limiter.observer.is_timing
