"""Concurrency: permits with leases, which are released, renewed, or expire."""

from ratelimit.algorithms.concurrency import MAX_RETRY_MS, ConcurrencyState, ConcurrencyView
from ratelimit.model.kinds import NEVER
from ratelimit.testing.factories import concurrency_limit

NOW = 1_700_000_000_000


def test_a_permit_is_held_until_it_is_released() -> None:
    """By its holder alone: another holder's release changes nothing."""
    state, limit = ConcurrencyState(), concurrency_limit(1)
    ConcurrencyView(state, limit, NOW).charge(1, 7)
    view = ConcurrencyView(state, limit, NOW)
    assert (view.available, view.releasable, view.usage()) == (0, 1, (1, 0, 0))
    view.release(1, 8)
    assert view.available == 0
    view.release(1, 7)
    assert (view.available, view.empty) == (1, True)


def test_a_permit_whose_lease_has_expired_does_not_count() -> None:
    """Whether or not it is still stored; the next charge sweeps it away."""
    state, limit = ConcurrencyState(), concurrency_limit(1, 5000)
    ConcurrencyView(state, limit, NOW).charge(1, 7)
    assert ConcurrencyView(state, limit, NOW + 4999).available == 0
    assert ConcurrencyView(state, limit, NOW + 5000).available == 1
    ConcurrencyView(state, limit, NOW + 5000).charge(1, 8)
    assert list(state.holders) == [8]


def test_a_renewal_starts_the_lease_again_but_revives_none() -> None:
    """It says whether the state expires later than before."""
    state, limit = ConcurrencyState(), concurrency_limit(1, 5000)
    ConcurrencyView(state, limit, NOW).charge(1, 7)
    assert ConcurrencyView(state, limit, NOW + 4000).renew(7)
    assert ConcurrencyView(state, limit, NOW + 8999).available == 0
    assert not ConcurrencyView(state, limit, NOW + 9000).renew(7)
    assert not ConcurrencyView(state, limit, NOW + 9000).renew(8)
    assert ConcurrencyView(state, limit, NOW + 9000).available == 1


def test_a_refusal_waits_for_the_next_lease_to_expire_or_a_second() -> None:
    """A permit may be released at any moment; where there is none at all, the wait is for ever."""
    state, limit = ConcurrencyState(), concurrency_limit(1, 5000)
    ConcurrencyView(state, limit, NOW).charge(1, 7)
    assert ConcurrencyView(state, limit, NOW).status(1) == (0, MAX_RETRY_MS, MAX_RETRY_MS)
    assert ConcurrencyView(state, limit, NOW + 4900).status(1) == (0, 100, 100)
    assert ConcurrencyView(ConcurrencyState(), concurrency_limit(0), NOW).status(1) == (0, 0, NEVER)


def test_a_correction_gives_or_takes_a_permit_whether_or_not_there_is_room() -> None:
    """A permit that was taken elsewhere counts, above the limit too."""
    state, limit = ConcurrencyState(), concurrency_limit(1)
    for holder in (7, 8):
        ConcurrencyView(state, limit, NOW).adjust(1, NOW, holder)
    assert ConcurrencyView(state, limit, NOW).available == -1
    ConcurrencyView(state, limit, NOW).adjust(-1, NOW, 8)
    assert ConcurrencyView(state, limit, NOW).available == 0
