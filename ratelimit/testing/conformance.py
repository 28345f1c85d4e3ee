"""What every store does: the suite that each of them passes, those of other people too."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from ratelimit.charge import NEVER, Charge
from ratelimit.decision import ServiceLimit
from ratelimit.stores import MemoryStore, Op, Request, Store
from ratelimit.testing.charges import fresh_key, pace, quota, slots, terms
from ratelimit.testing.clock import ManualClock
from ratelimit.testing.histories import History

Story = Callable[[Any, Store, ManualClock], Awaitable[None]]


def _story(tell: Story) -> Callable[[Any], None]:
    """Make a test of a story about a store and its clock; it needs no plugin for asyncio."""

    def test(self: "StoreConformance") -> None:
        async def whole() -> None:
            clock = ManualClock()
            store = self.make_store(clock)
            if not isinstance(store, Store):
                raise TypeError(f"make_store has to return a Store (and is no coroutine), not {store!r:.100}")
            try:
                await tell(self, store, clock)
            finally:
                await store.aclose()

        asyncio.run(whole())

    test.__name__, test.__doc__ = getattr(tell, "__name__", "test"), tell.__doc__
    return test


async def charge(store: Store, *charges: Charge, peek: bool = False) -> list[ServiceLimit]:
    return list(await store.charge(charges, peek=peek))


async def used(store: Store, one: Charge) -> int:
    return (await store.submit(Request([one], Op.USAGE))).numbers[0][0]


async def adjust(store: Store, one: Charge, delta: int, at: int) -> None:
    await store.submit(Request([one._replace(cost=delta)], Op.ADJUST, 0, at))


class StoreConformance:
    """Derive from this, say how a store is made, and pytest runs the whole suite on it.

        class TestMyStore(StoreConformance):
            def make_store(self, clock):
                return MyStore(clock=clock)

    `clock` stands still; the store has to go by it. Each test has a store and an event loop of its own, and keys that
    nothing else uses.
    """

    def make_store(self, clock: ManualClock) -> Store:
        """Return a store that goes by `clock`."""
        raise NotImplementedError

    @_story
    async def test_a_charge_is_answered_in_order(self, store: Store, clock: ManualClock) -> None:
        """One service limit for each charge, with all of its fields."""
        a, b = terms(5, 60, policy="a"), terms(100, 3600, 25, policy="b")
        first, second = await charge(store, Charge(a, fresh_key(), 2), Charge(b, fresh_key()))
        assert (first.policy, first.kind, first.scope, first.limit, first.window) == ("a", "limit", "token", 5, 60)
        assert (first.remaining, first.retry_after, first.reset_after, first.cost) == (3, 0.0, 60.001, 2)
        assert (second.policy, second.remaining, second.shadow, second.exhausted) == ("b", 99, False, False)
        assert math.isclose(first.reset_at, clock() / 1e6 + 60.001)

    @_story
    async def test_all_or_nothing(self, store: Store, clock: ManualClock) -> None:
        """What one charge of a request refuses, none of them makes."""
        wide, narrow = (terms(9), fresh_key()), (terms(1), fresh_key())
        await charge(store, Charge(*narrow))
        refused = await charge(store, Charge(*wide), Charge(*narrow), Charge(*wide))
        assert [one.remaining for one in refused] == [9, 0, 9]

    @_story
    async def test_shadows_charge_alone(self, store: Store, clock: ManualClock) -> None:
        """A full shadow refuses nobody and takes nothing; one with room is charged where the request is."""
        shadow, real = (terms(1, shadow=True), fresh_key()), (terms(2), fresh_key())
        told = [await charge(store, Charge(*shadow), Charge(*real)) for _ in range(3)]
        assert [[one.remaining for one in each] for each in told] == [[0, 1], [0, 0], [0, 0]]
        assert [each[0].retry_after > 0 for each in told] == [False, True, True]
        fresh = (terms(1, shadow=True), fresh_key())
        assert (await charge(store, Charge(*fresh), Charge(*real)))[0].remaining == 1

    @_story
    async def test_peek_changes_nothing(self, store: Store, clock: ManualClock) -> None:
        """Looking, at a key that is there or is not, leaves it as it is."""
        one, key = terms(3), fresh_key()
        assert (await charge(store, Charge(one, key), peek=True))[0].remaining == 3
        await charge(store, Charge(one, key, 2))
        clock.advance(seconds=5)
        for _ in range(3):
            assert (await charge(store, Charge(one, key), peek=True))[0].remaining == 1

    @_story
    async def test_large_numbers_are_exact(self, store: Store, clock: ManualClock) -> None:
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

    @_story
    async def test_a_limit_of_zero_refuses(self, store: Store, clock: ManualClock) -> None:
        """0 refuses for good, and leaves nothing behind."""
        (told,) = await charge(store, Charge(terms(0), fresh_key()))
        assert (told.remaining, told.retry_after, told.reset_after) == (0, math.inf, 0.0)

    @_story
    async def test_many_at_once(self, store: Store, clock: ManualClock) -> None:
        """Three hundred requests at the same moment share what is there, one unit each."""
        one, key = terms(100), fresh_key()
        answers = await asyncio.gather(*(charge(store, Charge(one, key)) for _ in range(300)))
        assert sorted(answer[0].remaining for answer in answers) == [0] * 201 + list(range(1, 100))

    @_story
    async def test_a_clock_that_steps_back(self, store: Store, clock: ManualClock) -> None:
        """Charges after a step back go to the last entry: late, never over."""
        one, key = terms(3, 1), fresh_key()
        await charge(store, Charge(one, key))
        clock.advance(seconds=-10)
        told = [(await charge(store, Charge(one, key)))[0] for _ in range(3)]
        assert [each.retry_after > 0 for each in told] == [False, False, True]
        clock.advance(seconds=10)
        assert (await charge(store, Charge(one, key), peek=True))[0].retry_after != 0

    @_story
    async def test_closing_twice_is_allowed(self, store: Store, clock: ManualClock) -> None:
        """`aclose` may be called again, also before anything was charged."""
        await store.aclose()
        await store.aclose()

    @_story
    async def test_what_is_settled_upwards_is_taken_off_the_next_window(self, store: Store, clock: ManualClock) -> None:
        """A charge that came to more than the limit was a burst, and one that came to less was none."""
        for first, settled, then in ((5, 15, 5), (15, 0, 10)):
            one = Charge(terms(10, 1, 5), fresh_key())
            at = (await store.submit(Request([one._replace(cost=first)]))).at
            await adjust(store, one, settled - first, at)
            clock.advance(ms=1001)
            (told,) = await charge(store, one._replace(cost=then + (0 if settled else 5)), peek=True)
            assert told.retry_after == 0
            (told,) = await charge(store, one._replace(cost=then + 6), peek=True)
            assert told.retry_after > 0

    @_story
    async def test_the_newest_is_given_back_first(self, store: Store, clock: ManualClock) -> None:
        """What is released comes off the last entries, so that the window is empty when it would have been at best."""
        one = Charge(terms(10, 60), fresh_key())
        await charge(store, one._replace(cost=4))
        clock.advance(seconds=30)
        await charge(store, one._replace(cost=4))
        await store.submit(Request([one._replace(cost=-5)], Op.RELEASE))
        clock.advance(ms=30_001)
        assert await used(store, one) == 0

    @_story
    async def test_a_settlement_may_outgrow_four_bytes(self, store: Store, clock: ManualClock) -> None:
        """A small limit that was settled to more than 2³² counts it exactly."""
        one = Charge(terms(100, 60), fresh_key())
        at = (await store.submit(Request([one]))).at
        clock.advance(seconds=5)
        await charge(store, one)
        await adjust(store, one, 2**33, at)
        assert await used(store, one) == 2**33 + 2

    @_story
    async def test_a_burst_is_not_forgotten_at_a_glance(self, store: Store, clock: ManualClock) -> None:
        """What is carried from the window before counts in every charge, however little is asked for."""
        one = Charge(terms(5, 1, 5), fresh_key())
        answers = []
        for wait, cost in ((1000, 5), (1, 4), (984, 2), (984, 1), (0, 3), (984, 1), (500, 3), (0, 3)):
            clock.advance(ms=wait)
            await charge(store, one._replace(cost=cost))
            answers.append((await charge(store, one._replace(cost=6), peek=True))[0].retry_after)
        assert answers == [1.001, 1.0, 0.016, 0.034, 0.034, 0.017, 0.501, 2.002]

    @_story
    async def test_what_has_left_is_not_counted_at_a_glance(self, store: Store, clock: ManualClock) -> None:
        """Under another limit an open slot may lie beside entries that have left."""
        key = fresh_key()
        small, large = terms(50, 1), terms(300, 1)
        for wait, one, cost in ((0, small, 8), (1008, large, 7), (4, large, 1)):
            clock.advance(ms=wait)
            (told,) = await charge(store, Charge(one, key, cost))
        assert told.remaining == 300 - 8

    @_story
    async def test_a_quota_turns_over(self, store: Store, clock: ManualClock) -> None:
        """What was used counts until the hour is over, in UTC, and can be read for an hour more."""
        one = Charge(quota(5, "hour"), fresh_key())
        clock.advance(seconds=3600 - clock() / 1e6 % 3600)
        await charge(store, one._replace(cost=5))
        clock.advance(seconds=3599)
        (told,) = await charge(store, one)
        assert (told.remaining, told.retry_after, told.reset_after) == (0, 1.0, 1.0)
        clock.advance(seconds=1)
        assert (await charge(store, one))[0].remaining == 4
        assert (await store.submit(Request([one], Op.USAGE))).numbers[0] == (1, 3_600_000, 5)

    @_story
    async def test_a_level_comes_down_by_release_alone(self, store: Store, clock: ManualClock) -> None:
        """And never below what was taken."""
        one = Charge(quota(5, None), fresh_key())
        await charge(store, one._replace(cost=5))
        clock.advance(seconds=10**8)
        assert (await charge(store, one, peek=True))[0].retry_after == math.inf
        answer = await store.submit(Request([one._replace(cost=-6)], Op.RELEASE))
        assert answer.numbers[0][2] == NEVER
        await store.submit(Request([one._replace(cost=-2)], Op.RELEASE))
        assert await used(store, one) == 3

    @_story
    async def test_slots_are_held_by_lease(self, store: Store, clock: ManualClock) -> None:
        """Until they are given back, or are not renewed in time."""
        one = Charge(slots(1, 5000), fresh_key())
        for holder, admitted in ((1, True), (2, False)):
            answer = await store.submit(Request([one], Op.HOLD, holder))
            assert (answer.numbers[0][2] <= 0) == admitted
        clock.advance(seconds=4)
        await store.submit(Request([one], Op.RENEW, 1))
        clock.advance(seconds=4)
        assert await used(store, one) == 1
        await store.submit(Request([one._replace(cost=-1)], Op.ADJUST, 2))
        assert await used(store, one) == 1
        await store.submit(Request([one._replace(cost=-1)], Op.ADJUST, 1))
        assert await used(store, one) == 0
        await store.submit(Request([one], Op.HOLD, 3))
        clock.advance(seconds=5)
        assert await used(store, one) == 0

    @_story
    async def test_turns_follow_each_other(self, store: Store, clock: ManualClock) -> None:
        """Evenly spaced, and the last ones may be given back."""
        one = Charge(pace(10), fresh_key())
        turns = [(await store.submit(Request([one]))).numbers[0] for _ in range(3)]
        assert [(turn - clock(), wait) for turn, wait, _ in turns] == [(0, 0), (100_000, 100_000), (200_000, 200_000)]
        impatient = Charge(pace(10, 1, 250), one.key)
        assert (await store.submit(Request([impatient]))).numbers[0][2] == 50
        await store.submit(Request([one._replace(cost=-1)], Op.ADJUST, turns[2][0]))
        assert (await store.submit(Request([impatient]))).numbers[0][0] == turns[2][0]

    @_story
    async def test_notes_are_kept_by_version(self, store: Store, clock: ManualClock) -> None:
        """Who has seen a version is told nothing until something is changed."""
        book = f"rl:{{{fresh_key()}}}:notes"
        first = await store.notes(book, None)
        assert first is not None
        assert dict(first.values) == {}
        await store.note(book, "a", b"1")
        second = await store.notes(book, first.version)
        assert second is not None
        assert (dict(second.values), await store.notes(book, second.version)) == ({"a": b"1"}, None)
        await store.note(book, "a", None)
        third = await store.notes(book, second.version)
        assert third is not None
        assert third.version not in {first.version, second.version}
        assert dict(third.values) == {}

    @_story
    async def test_it_answers_as_memory_does(self, store: Store, clock: ManualClock) -> None:
        """Twenty histories of every kind of request, by lot: the same numbers at each step."""
        for seed in range(20):
            history, memory = History(seed), MemoryStore(clock=clock)
            for _ in range(60):
                clock.advance(ms=history.wait())
                request = history.request()
                answer, expected = await store.submit(request), memory.run(request)
                assert answer.numbers == expected.numbers, f"history {seed}: {request}"
                history.note(request, expected)
