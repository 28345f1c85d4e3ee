"""What every store does: the one suite that all of them pass."""

import asyncio
import math

import pytest

from ratelimit import ServiceLimit
from ratelimit.decision import Charge
from ratelimit.stores import Store
from tests.support.clock import ManualClock
from tests.support.engines import fresh_key, terms


async def charge(store: Store, *charges: Charge, peek: bool = False) -> list[ServiceLimit]:
    return list(await store.charge(charges, peek=peek))


async def test_a_charge_is_answered_in_order(store: Store, clock: ManualClock) -> None:
    """One service limit for each charge, with all of its fields."""
    a, b = terms(5, 60, policy="a"), terms(100, 3600, 25, policy="b")
    first, second = await charge(store, Charge(a, fresh_key(), 2), Charge(b, fresh_key()))
    assert (first.policy, first.kind, first.scope, first.limit, first.window) == ("a", "limit", "token", 5, 60)
    assert (first.remaining, first.retry_after, first.reset_after, first.cost) == (3, 0.0, 60.001, 2)
    assert (second.policy, second.remaining, second.shadow, second.exhausted) == ("b", 99, False, False)
    assert first.reset_at == pytest.approx(clock() / 1e6 + 60.001)


async def test_all_or_nothing(store: Store) -> None:
    """What one charge of a request refuses, none of them makes."""
    wide, narrow = (terms(9), fresh_key()), (terms(1), fresh_key())
    await charge(store, Charge(*narrow))
    refused = await charge(store, Charge(*wide), Charge(*narrow), Charge(*wide))
    assert [one.remaining for one in refused] == [9, 0, 9]


async def test_shadows_charge_alone(store: Store) -> None:
    """A full shadow refuses nobody and takes nothing; one with room is charged where the request is."""
    shadow, real = (terms(1, shadow=True), fresh_key()), (terms(2), fresh_key())
    told = [await charge(store, Charge(*shadow), Charge(*real)) for _ in range(3)]
    assert [[one.remaining for one in each] for each in told] == [[0, 1], [0, 0], [0, 0]]
    assert [each[0].retry_after > 0 for each in told] == [False, True, True]
    fresh = (terms(1, shadow=True), fresh_key())
    assert (await charge(store, Charge(*fresh), Charge(*real)))[0].remaining == 1


async def test_peek_changes_nothing(store: Store, clock: ManualClock) -> None:
    """Looking, at a key that is there or is not, leaves it as it is."""
    one, key = terms(3), fresh_key()
    assert (await charge(store, Charge(one, key), peek=True))[0].remaining == 3
    await charge(store, Charge(one, key, 2))
    clock.advance(seconds=5)
    for _ in range(3):
        assert (await charge(store, Charge(one, key), peek=True))[0].remaining == 1


async def test_large_numbers_are_exact(store: Store, clock: ManualClock) -> None:
    """15 digits lose none, also when a small limit grows into a large one in mid-window."""
    huge, key = terms(10**15 - 1, 60, 10**14), fresh_key()
    assert (await charge(store, Charge(terms(10), key, 7)))[0].remaining == 3
    clock.advance(seconds=2)
    (told,) = await charge(store, Charge(huge, key, 999_999_999_999_990))
    assert told.remaining == 10**15 - 1 - 999_999_999_999_990 - 7
    (told,) = await charge(store, Charge(huge, key, 10**14 + 3), peek=True)
    assert told.retry_after == 58.033  # 64 slots of 938 ms cover the minute, and a little more.
    (told,) = await charge(store, Charge(huge, key, 2 * 10**15))
    assert told.retry_after == math.inf


async def test_a_limit_of_zero_refuses(store: Store) -> None:
    """0 refuses for good, and leaves nothing behind."""
    (told,) = await charge(store, Charge(terms(0), fresh_key()))
    assert (told.remaining, told.retry_after, told.reset_after) == (0, math.inf, 0.0)


async def test_many_at_once(store: Store) -> None:
    """Three hundred requests at the same moment share what is there, one unit each."""
    one, key = terms(100), fresh_key()
    answers = await asyncio.gather(*(charge(store, Charge(one, key)) for _ in range(300)))
    assert sorted(answer[0].remaining for answer in answers) == [0] * 201 + list(range(1, 100))


async def test_a_clock_that_steps_back(store: Store, clock: ManualClock) -> None:
    """Charges after a step back go to the last entry: late, never over."""
    one, key = terms(3, 1), fresh_key()
    await charge(store, Charge(one, key))
    clock.advance(seconds=-10)
    told = [(await charge(store, Charge(one, key)))[0] for _ in range(3)]
    assert [each.retry_after > 0 for each in told] == [False, False, True]
    clock.advance(seconds=10)
    assert (await charge(store, Charge(one, key), peek=True))[0].retry_after != 0


async def test_closing_twice_is_allowed(store: Store) -> None:
    """`aclose` may be called again, also before anything was charged."""
    await store.aclose()
    await store.aclose()
