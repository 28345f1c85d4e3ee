"""Debts (units that were settled above a limit) count in the next window, whatever limit the key has then."""

from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Operation, StoreRequest
from tests.support.stores import SyncStore, fresh_key, window_limit


def test_a_debt_without_burst_is_deducted_from_the_burst_that_follows(sync_store: SyncStore) -> None:
    """A key that was settled 5 units above a limit without burst begins a limit with burst 5 units short."""
    plain, with_burst, key = window_limit(10, 1), window_limit(10, 1, 5), fresh_key()
    made = sync_store.run(StoreRequest([Charge(plain, key, 10)]))
    sync_store.run(StoreRequest([Charge(plain, key, 5)], Operation.ADJUST, 0, made.store_ms))
    sync_store.clock.advance(ms=1500)
    assert sync_store.charge([Charge(with_burst, key, 11)])[0].retry_after > 0
    assert sync_store.charge([Charge(with_burst, key, 10)])[0].retry_after == 0


def test_a_forced_charge_without_burst_is_a_debt_too(sync_store: SyncStore) -> None:
    """Units that are counted above the limit at once carry over in the same way."""
    plain, with_burst, key = window_limit(10, 1), window_limit(10, 1, 5), fresh_key()
    sync_store.run(StoreRequest([Charge(plain, key, 15)], Operation.ADJUST))
    sync_store.clock.advance(ms=1500)
    assert sync_store.charge([Charge(with_burst, key, 11)])[0].retry_after > 0
    assert sync_store.charge([Charge(with_burst, key, 10)])[0].retry_after == 0


def test_a_debt_lapses_after_another_empty_window(sync_store: SyncStore) -> None:
    """The deduction ends when a whole further window has passed."""
    plain, with_burst, key = window_limit(10, 1), window_limit(10, 1, 5), fresh_key()
    sync_store.run(StoreRequest([Charge(plain, key, 15)], Operation.ADJUST))
    sync_store.clock.advance(ms=2002)
    assert sync_store.charge([Charge(with_burst, key, 15)])[0].retry_after == 0
