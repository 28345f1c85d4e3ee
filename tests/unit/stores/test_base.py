"""The interface of a store: what a subclass gets without writing it."""

from ratelimit import MemoryStore
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import StoreReply, StoreRequest
from ratelimit.testing import ManualClock
from ratelimit.testing.factories import window_limit
from tests.support.stores import RemoteStore

CHARGE = Charge(window_limit(5), "k")


async def test_a_store_answers_in_process_only_if_it_says_so(clock: ManualClock) -> None:
    """By default `submit_nowait` returns `None` and does nothing."""
    store = RemoteStore(clock)
    assert store.submit_nowait(StoreRequest([CHARGE])) is None
    assert (store.calls, store.used(CHARGE)) == (0, 0)


async def test_a_subclass_that_changes_submit_is_asked_through_it(clock: ManualClock) -> None:
    """A `submit_nowait` that is inherited would bypass the new `submit`; one that is written beside it stays."""

    class Slow(MemoryStore):
        async def submit(self, request: StoreRequest) -> StoreReply:
            return await super().submit(request)

    class Both(Slow):
        async def submit(self, request: StoreRequest) -> StoreReply:
            return await super().submit(request)

        def submit_nowait(self, request: StoreRequest) -> StoreReply:
            return self.run(request)

    class Named(MemoryStore):
        """Changes neither."""

    request = StoreRequest([CHARGE])
    stores: list[Store] = [Slow(clock=clock), Both(clock=clock), Named(clock=clock)]
    assert [store.submit_nowait(request) is not None for store in stores] == [False, True, True]


async def test_a_store_that_is_not_shared_counts_one_worker(clock: ManualClock) -> None:
    """And has no calls in doubt."""
    store = RemoteStore(clock)
    assert await store.heartbeat("registry", "worker", 5.0) == 1
    assert await store.resolve_in_doubt()


async def test_charge_returns_a_service_limit_for_each_charge(store: Store) -> None:
    """With `peek` nothing is charged; each of the stores does the same."""
    charges = [Charge(window_limit(5), "a", 2), Charge(window_limit(9), "b")]
    assert [limit.remaining for limit in await store.charge(charges, peek=True)] == [5, 9]
    assert [limit.remaining for limit in await store.charge(charges)] == [3, 8]


def test_a_mixin_that_overrides_submit_is_asked() -> None:
    """A wrapper around an in-process store is never bypassed by `submit_nowait`, however it is mixed in."""

    class Counting:
        async def submit(self, request: StoreRequest) -> StoreReply:
            raise NotImplementedError

    class Mixed(Counting, MemoryStore):
        pass

    class Run(MemoryStore):
        def run(self, request: StoreRequest) -> StoreReply:
            asked.append(request)
            return super().run(request)

    asked = list[StoreRequest]()
    request = StoreRequest([])
    assert Mixed().submit_nowait(request) is None
    assert Run().submit_nowait(request) is not None
    assert asked == [request]
