"""Rehearsed charges: the store replies as it would, and no counter changes."""

import pytest

from ratelimit import MemoryStore, RedisStore
from ratelimit.errors import StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveConcurrency, EffectiveQuota, EffectiveRate
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, StoreRequest
from ratelimit.stores.redis.rehearsal import rehearse
from ratelimit.testing import ManualClock

RATE = EffectiveRate(policy="r", scope="token", limit=3, window=60)
QUOTA = EffectiveQuota(policy="q", scope="org", limit=5, window=86_400, period="day")
PERMITS = EffectiveConcurrency(policy="c", scope="org", limit=2, lease_ms=60_000)


async def test_it_replies_as_a_charge_does_and_changes_nothing(store: Store, clock: ManualClock) -> None:
    """Request after request, until each of the kinds has refused."""
    for cost in (1, 1, 2, 1, 1, 1):
        charges = [Charge(RATE, "{a}:r", cost), Charge(QUOTA, "{a}:q", cost), Charge(PERMITS, "{a}:c", 1)]
        request = StoreRequest(charges, Operation.ACQUIRE, holder=clock() + cost)
        rehearsed = [(await store.rehearse(request)).readings for _ in range(3)]
        assert rehearsed == [list((await store.submit(request)).readings)] * 3
        clock.advance(seconds=1)


async def test_a_refusal_on_one_server_is_heard_of_by_all(redis_url: str, clock: ManualClock) -> None:
    """Where the charges lie on several servers, nothing is charged at the others."""
    store, full = RedisStore(redis_url, clock=clock, timeout=10), Charge(RATE, "{a}:r", 3)
    await store.submit(StoreRequest([full]))
    charges = [Charge(RATE, "{b}:r"), full, Charge(QUOTA, "{c}:q")]

    def server_of(charge: Charge) -> int:
        return ord(charge.key[1])

    reply = await rehearse(store.client.run, StoreRequest(charges), now=clock(), server_of=server_of)
    assert reply.readings == (await store.submit(StoreRequest(charges))).readings
    await store.aclose()


async def test_a_store_without_rehearsals_tells_how_things_stand(clock: ManualClock) -> None:
    """A store that others write need not offer them."""

    class Own(MemoryStore):
        rehearse = Store.rehearse

    reply = await Own(clock=clock).rehearse(StoreRequest([Charge(RATE, "k")]))
    assert [remaining for remaining, _, _ in reply.readings] == [3]


async def test_a_strange_reply_is_an_error() -> None:
    """As it is for charges."""

    async def run(*_: object) -> bytes:
        return b"?"

    with pytest.raises(StoreError, match="does not fit"):
        await rehearse(run, StoreRequest([Charge(RATE, "k")]), now=None, server_of=lambda _: 0)
