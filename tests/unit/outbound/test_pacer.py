"""The pacer: when each caller may start, in virtual time."""

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from ratelimit import ConfigurationError, LimitExceeded, MemoryStore, Pacer, RedisStore, StoreError
from ratelimit.errors import StoreUnavailable
from ratelimit.outbound.reservation_queue import ReservationQueue
from ratelimit.stores.messages import StoreReply, StoreRequest
from tests.support.virtual_time import VirtualLoop, virtually


def test_starts_are_evenly_spaced_in_the_order_of_arrival() -> None:
    """Thirty callers that come at once start every 10 ms, first come first served."""

    async def story(loop: VirtualLoop) -> list[tuple[int, float]]:
        pacer, gone = Pacer("100/second", clock=loop.clock), list[tuple[int, float]]()

        async def go(number: int) -> None:
            waited = await pacer.wait()
            gone.append((number, round(loop.time(), 6)))
            assert waited == pytest.approx(number / 100)

        await asyncio.gather(*(go(number) for number in range(30)))
        return gone

    assert virtually(story) == [(number, number / 100) for number in range(30)]


def test_each_key_has_its_own_pace() -> None:
    """One subscription does not delay another, and the values of several dimensions do not mix."""

    async def story(loop: VirtualLoop) -> list[float]:
        pacer = Pacer("1/minute", per=["org", "subscription"], clock=loop.clock)
        keys = [("a", 1), ("a", 2), ("a:1", ""), ("a", "1"), ("b", 1)]
        return [(await pacer.reserve(*key)).delay for key in keys if key[1] != ""]

    assert virtually(story) == [0, 0, 60, 0]


def test_a_wait_beyond_the_bound_reserves_nothing() -> None:
    """A wait of more than `max_wait` raises at once, with when to try again; the call's bound wins over the pacer's."""

    async def story(loop: VirtualLoop) -> None:
        pacer = Pacer("10/second", max_wait=0.25, clock=loop.clock)
        reservations = [await pacer.reserve() for _ in range(3)]
        for _ in range(2):
            with pytest.raises(LimitExceeded, match=r"starts in 0\.3 s, more than max_wait=0\.25") as refused:
                await pacer.wait()
            assert refused.value.decision.retry_after == 0.05
        with pytest.raises(LimitExceeded):
            await pacer.wait(max_wait=0)
        assert loop.time() == 0
        assert await pacer.wait(max_wait=5) == pytest.approx(0.3)
        assert [reservation.delay for reservation in reservations] == [0, 0, 0]

    virtually(story)


def test_a_cancelled_caller_cancels_a_reservation() -> None:
    """When a caller is cancelled, those behind it move up, and the last reservation goes to the next caller that asks."""

    async def story(loop: VirtualLoop) -> list[float]:
        pacer = Pacer("1/second", clock=loop.clock)
        await pacer.wait()
        waiting = [asyncio.ensure_future(pacer.wait()) for _ in range(5)]
        await asyncio.sleep(0.1)
        waiting[1].cancel()
        await asyncio.sleep(0)
        delays = [(await pacer.reserve()).delay]
        for task in waiting[2:]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await waiting[0] == pytest.approx(1.0)
        delays.append((await pacer.reserve()).delay)
        await pacer.aclose()
        return delays

    first, second = virtually(story)
    assert first == pytest.approx(5.9)
    assert second == pytest.approx(6.0)


def test_the_last_reservations_leave_no_gap_when_cancelled() -> None:
    """A cancelled reservation that no other one follows is given to the next caller; cancelling twice has no effect."""

    async def story(loop: VirtualLoop) -> float:
        pacer = Pacer("1/second", clock=loop.clock)
        reservations = [await pacer.reserve() for _ in range(5)]
        for reservation in reservations[1:]:
            reservation.cancel()
            reservation.cancel()
        await pacer.aclose()
        return (await pacer.reserve()).delay

    assert virtually(story) == 1


@pytest.mark.parametrize("stall", [0.055, 0.2, 1.0, 5.0])
@pytest.mark.parametrize(("rate", "slack"), [("100/second", 0), ("1000/second", 5)])
def test_missed_reservations_are_not_made_up_for(rate: str, slack: int, stall: float) -> None:
    """After the machine stood still, no span of k intervals sees more than k + 1 starts, and the order stays."""

    async def story(loop: VirtualLoop) -> list[tuple[int, float]]:
        pacer, gone = Pacer(rate, clock=loop.clock), list[tuple[int, float]]()

        async def go(number: int) -> None:
            await pacer.wait()
            gone.append((number, loop.time()))

        tasks = [asyncio.ensure_future(go(number)) for number in range(300)]
        await asyncio.sleep(0.0401)
        loop.now += stall
        await asyncio.gather(*tasks)
        return gone

    gone, interval = virtually(story), 1 / int(rate.partition("/")[0])
    assert [number for number, _ in gone] == list(range(300))
    starts = [at for _, at in gone]
    for intervals in (1, 10, 100):
        span = intervals * interval - 1e-6
        assert max(bisect_right(starts, at + span) - n for n, at in enumerate(starts)) <= intervals + 1 + slack
    assert max(starts) <= 300 * interval + stall + 0.1


def test_a_caller_that_is_always_late_is_served() -> None:
    """A machine that is too slow for its pace makes progress."""

    async def story(loop: VirtualLoop) -> int:
        pacer, tries = Pacer("1000/second", clock=loop.clock), 0
        store = pacer.store
        submit = store.submit

        async def slow(request: StoreRequest) -> StoreReply:
            nonlocal tries
            tries += 1
            loop.call_later(0.001, lambda: setattr(loop, "now", loop.now + 0.1))
            return await submit(request)

        store.submit = slow  # type: ignore[method-assign]
        await pacer.reserve()
        await pacer.reserve()
        await pacer.wait(max_wait=60)
        return tries

    assert 3 <= virtually(story) <= 9


class Flaky(MemoryStore):
    """A store that raises while it is unavailable."""

    is_down = True
    tries = 0

    async def submit(self, request: StoreRequest) -> StoreReply:
        self.tries += 1
        if self.is_down:
            raise StoreError("down")
        return await super().submit(request)


def test_every_caller_waits_while_the_store_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    """No reservation is made up, a bounded wait raises the store's error, and each change is one line in the log."""

    async def story(loop: VirtualLoop) -> None:
        store = Flaky(clock=loop.clock)
        pacer = Pacer("1/second", store=store)
        with pytest.raises(StoreError):
            await pacer.wait(max_wait=1)
        assert 0.7 < loop.time() <= 1
        loop.call_later(5, setattr, store, "is_down", False)
        waits = await asyncio.gather(pacer.wait(), pacer.wait())
        assert sorted(waits) == pytest.approx([5.2, 6.2], abs=0.21)

    with caplog.at_level(logging.WARNING, "ratelimit"):
        virtually(story)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["store unavailable", "store available"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Pacer("0/second"), "rate"),
        (lambda: Pacer("100001/second"), "rate"),
        (lambda: Pacer("quickly"), "'quickly' is not a rate"),
        (lambda: Pacer("1/second", max_wait=-1), "max_wait"),
        (lambda: Pacer("1/second", max_wait=float("nan")), "max_wait"),
        (lambda: Pacer("1/second", max_wait=True), "max_wait"),
        (lambda: Pacer("1/second", store="postgres://x"), "store"),
        (lambda: Pacer("1/second", per=["a", "a"]), "per"),
        (lambda: Pacer("1/second", per=[""]), "per"),
        (lambda: Pacer("1/second", per=[7]), "per"),  # type: ignore[list-item]
    ],
)
def test_wrong_values_fail_at_once(make: Callable[[], Any], named: str) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=named):
        make()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda pacer: pacer.wait(), "per is subscription, and 0 values"),
        (lambda pacer: pacer.wait("a", "b"), "per is subscription, and 2 values"),
        (lambda pacer: pacer.reserve(""), "the value of subscription is missing"),
        (lambda pacer: pacer.reserve(None), "the value of subscription is missing"),
        (lambda pacer: pacer.wait("a", max_wait="soon"), "max_wait"),
    ],
)
async def test_a_key_needs_a_value_for_each_dimension(call: Callable[[Pacer], Awaitable[Any]], named: str) -> None:
    """The error is raised before anything is reserved."""
    with pytest.raises(ConfigurationError, match=named):
        await call(Pacer("1/second", per="subscription"))


def test_threads_without_a_loop_wait_too() -> None:
    """The background loop serves all threads, one after the other; closing twice is allowed."""
    pacer, waits = Pacer("1000/second"), list[float]()
    threads = [threading.Thread(target=lambda: waits.append(pacer.wait_sync())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waits) == 8
    pacer.close()
    pacer.close()


async def test_reservations_are_in_order_across_processes(redis_url: str) -> None:
    """Of several pacers on one Redis, as of several processes, the first to ask gets the first reservation."""
    pacers = [Pacer("2/second", per="subscription", store=RedisStore(redis_url, timeout=10)) for _ in range(3)]
    reservations = [await pacers[number % 3].reserve("s") for number in range(60)]
    starts = [reservation.start for reservation in reservations]
    assert [after - before for before, after in pairwise(starts)] == [500_000] * 59
    for reservation in reservations[30:]:
        reservation.cancel()
    for pacer in pacers:
        await pacer.aclose()
    last = Pacer("2/second", per="subscription", store=RedisStore(redis_url, timeout=10))
    assert (await last.reserve("s")).start - starts[29] == 500_000
    await last.aclose()


def test_callers_move_up_within_their_process() -> None:
    """The caller behind a cancelled one takes its reservation; those of another process stay as they are."""

    async def story(loop: VirtualLoop) -> None:
        store = MemoryStore(clock=loop.clock)
        here, there = (Pacer("1/second", store=store, clock=loop.clock) for _ in range(2))
        gone = dict[str, float]()

        async def go(pacer: Pacer, name: str) -> None:
            await pacer.wait()
            gone[name] = round(loop.time(), 3)

        tasks = {}
        for name, pacer in (("a", here), ("b", here), ("x", there), ("c", here), ("d", here)):
            tasks[name] = asyncio.ensure_future(go(pacer, name))
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        tasks["b"].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert gone == {"a": 0, "c": 1, "x": 2, "d": 3}
        assert await here.wait() == pytest.approx(1)
        await here.aclose()

    virtually(story)


def test_a_reservation_that_is_used_too_late_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process is busy when a reservation is handed out, the order stays and the pace is kept."""
    handed, hand_out = list[int](), ReservationQueue.hand_out

    async def story(loop: VirtualLoop) -> list[tuple[int, float]]:
        pacer, gone = Pacer("100/second", clock=loop.clock), list[tuple[int, float]]()

        def slow(queue: ReservationQueue, start: int) -> bool:
            was_given = hand_out(queue, start)
            handed.append(start)
            loop.now += 0.008 * (len(handed) == 3)
            return was_given

        async def go(number: int) -> None:
            await pacer.wait()
            gone.append((number, round(loop.time(), 3)))

        monkeypatch.setattr(ReservationQueue, "hand_out", slow)
        await asyncio.gather(*(go(number) for number in range(6)))
        assert pacer.missed == 1
        return gone

    assert virtually(story) == [(0, 0), (1, 0.01), (2, 0.03), (3, 0.04), (4, 0.05), (5, 0.06)]


def test_a_process_that_is_always_slow_makes_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late its callers run after their reservations were handed out."""
    hand_out = ReservationQueue.hand_out

    async def story(loop: VirtualLoop) -> int:
        pacer = Pacer("100/second", clock=loop.clock)

        def slow(queue: ReservationQueue, start: int) -> bool:
            was_given = hand_out(queue, start)
            loop.now += 0.03
            return was_given

        monkeypatch.setattr(ReservationQueue, "hand_out", slow)
        await asyncio.gather(*(pacer.wait() for _ in range(5)))
        return pacer.missed

    assert 3 <= virtually(story) <= 30


def test_a_queue_lives_while_a_caller_waits() -> None:
    """However many other keys are used between a reservation's hand-out and its use."""

    async def story(loop: VirtualLoop) -> float:
        pacer = Pacer("1/second", per="k", clock=loop.clock)
        await pacer.wait("a")
        waiting, queue = asyncio.ensure_future(pacer.wait("a")), pacer.queue("a")
        await asyncio.sleep(0)
        hand_out, once = queue.hand_out, list[int]()

        async def others() -> None:
            for number in range(150):
                await pacer.wait(number)
            loop.now += 0.6

        def slow(start: int) -> bool:
            if not once:
                once.append(1)
                tasks.append(asyncio.ensure_future(others()))
            return hand_out(start)

        tasks = list[Any]()
        queue.hand_out = slow  # type: ignore[method-assign]
        return await asyncio.wait_for(waiting, 1000)

    assert virtually(story) < 3.7


def test_closing_ends_all_waits() -> None:
    """Callers whose missed reservation is being replaced end too; afterwards the pacer can be used again."""

    async def story(loop: VirtualLoop) -> None:
        store = Flaky(clock=loop.clock)
        store.is_down = False
        pacer = Pacer("10/second", store=store, clock=loop.clock)
        await pacer.wait()
        waiting = [asyncio.ensure_future(pacer.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        store.is_down = True
        loop.now += 0.27
        asking = asyncio.ensure_future(pacer.wait())
        await asyncio.sleep(0.05)
        await asyncio.wait_for(pacer.aclose(), 5)
        results = await asyncio.wait_for(asyncio.gather(*waiting, asking, return_exceptions=True), 5)
        assert [type(result) for result in results] == [StoreUnavailable] * 3
        store.is_down = False
        assert await pacer.wait() < 0.3
        assert await pacer.wait() < 0.3
        await pacer.aclose()

    virtually(story)


def test_the_bound_holds_for_missed_reservations() -> None:
    """A caller whose next reservation lies far beyond the bound gets the error a moment after the bound."""

    async def story(loop: VirtualLoop) -> None:
        store = MemoryStore(clock=loop.clock)
        here, there = (Pacer("10/second", store=store, clock=loop.clock) for _ in range(2))
        await here.wait()
        waiting = asyncio.ensure_future(here.wait(max_wait=0.2))
        await asyncio.sleep(0)
        for _ in range(600):
            await there.reserve()
        loop.now += 0.2
        with pytest.raises(LimitExceeded, match=r"was missed, more than max_wait=0\.2"):
            await waiting
        assert loop.time() < 0.4

    virtually(story)


def test_a_reservation_of_a_cancelled_caller_is_used() -> None:
    """A caller that is cancelled when its reservation starts leaves it to the next caller."""

    async def story(loop: VirtualLoop) -> None:
        store = MemoryStore(clock=loop.clock)
        pacer, other = (Pacer("1/minute", store=store, clock=loop.clock) for _ in range(2))
        await pacer.wait()
        first, second = asyncio.ensure_future(pacer.wait()), asyncio.ensure_future(pacer.wait())
        await asyncio.sleep(0)
        loop.call_at(60, first.cancel)
        assert await second == pytest.approx(60, abs=1)
        assert (await other.reserve()).delay == pytest.approx(60, abs=1)
        await pacer.aclose()

    virtually(story)


def test_a_store_that_was_emptied_does_not_double_the_pace() -> None:
    """One process hands out its reservations of before and after no faster than its pace."""

    async def story(loop: VirtualLoop) -> list[float]:
        store, gone = MemoryStore(clock=loop.clock), list[float]()
        pacer = Pacer("100/second", store=store, clock=loop.clock)

        async def go() -> None:
            await pacer.wait()
            gone.append(loop.time())

        tasks = [asyncio.ensure_future(go()) for _ in range(100)]
        await asyncio.sleep(0.2)
        store.clear()
        tasks += [asyncio.ensure_future(go()) for _ in range(100)]
        await asyncio.gather(*tasks)
        return gone

    gone = virtually(story)
    assert len(gone) == 200
    # A start may be half an interval late, and the next one in time.
    assert max(bisect_right(gone, at + 0.0999) - n for n, at in enumerate(gone)) <= 21
    assert max(bisect_right(gone, at + 0.0049) - n for n, at in enumerate(gone)) == 1


def test_a_used_reservation_is_not_cancelled() -> None:
    """`finally: reservation.cancel()` has no effect after its use, and a cancelled one cannot be waited for."""

    async def story(loop: VirtualLoop) -> None:
        pacer = Pacer("1/second", clock=loop.clock)
        for number in range(3):
            reservation = await pacer.reserve()
            assert await reservation.wait() < 0.001
            reservation.cancel()
            assert loop.time() == pytest.approx(number)
        cancelled = await pacer.reserve()
        cancelled.cancel()
        with pytest.raises(ConfigurationError, match="this reservation was used or cancelled"):
            await cancelled.wait()
        await pacer.aclose()

    virtually(story)


def test_clocks_of_several_servers_do_not_mix() -> None:
    """Each key follows the clock of the server that holds it."""

    class Nodes(MemoryStore):
        def __init__(self, loop: VirtualLoop) -> None:
            super().__init__()
            self.ahead = MemoryStore(clock=lambda: loop.clock() + 500_000)
            self.right = MemoryStore(clock=loop.clock)

        async def submit(self, request: StoreRequest) -> StoreReply:
            return await (self.ahead if "{a" in request.charges[0].key else self.right).submit(request)

    async def story(loop: VirtualLoop) -> list[float]:
        pacer, gone = Pacer("100/second", per="k", store=Nodes(loop), clock=loop.clock), list[float]()

        async def go(key: str) -> None:
            await pacer.wait(key)
            gone.extend([loop.time()] * (key == "b"))

        await asyncio.gather(*(go(key) for key in "ab" * 50))
        assert pacer.missed == 0
        return gone

    gone = virtually(story)
    assert [round(after - before, 3) for before, after in pairwise(gone)] == [0.01] * 49
