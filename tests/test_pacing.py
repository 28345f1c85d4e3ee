"""The pacer: when who has a turn, in virtual time."""

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from ratelimit import ConfigurationError, LimitExceeded, MemoryStore, Pacer, StoreError
from ratelimit.errors import StoreUnavailable
from ratelimit.stores import Answer, Request
from ratelimit.turns import Line
from tests.support.virtual_time import VirtualLoop, virtually


def test_turns_begin_evenly_spaced_in_the_order_of_arrival() -> None:
    """Thirty who come at once go every 10 ms, first come first served."""

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
    """One subscription does not hold up another, and the values are told apart."""

    async def story(loop: VirtualLoop) -> list[float]:
        pacer = Pacer("1/minute", per=["org", "subscription"], clock=loop.clock)
        keys = [("a", 1), ("a", 2), ("a:1", ""), ("a", "1"), ("b", 1)]
        return [(await pacer.reserve(*key)).delay for key in keys if key[1] != ""]

    assert virtually(story) == [0, 0, 60, 0]


def test_a_wait_is_bounded_and_takes_nothing() -> None:
    """More than `max_wait` is told at once, with when to come again; the pacer's own bound, or the call's."""

    async def story(loop: VirtualLoop) -> None:
        pacer = Pacer("10/second", max_wait=0.25, clock=loop.clock)
        turns = [await pacer.reserve() for _ in range(3)]
        for _ in range(2):
            with pytest.raises(LimitExceeded, match=r"is 0\.3 s away, more than max_wait=0\.25") as refused:
                await pacer.wait()
            assert refused.value.decision.retry_after == 0.05
        with pytest.raises(LimitExceeded):
            await pacer.wait(max_wait=0)
        assert loop.time() == 0
        assert await pacer.wait(max_wait=5) == pytest.approx(0.3)
        assert [turn.delay for turn in turns] == [0, 0, 0]

    virtually(story)


def test_who_is_cancelled_gives_the_turn_back() -> None:
    """All who wait are cancelled, and the next one has the first turn again; one alone in the middle is lost."""

    async def story(loop: VirtualLoop) -> list[float]:
        pacer = Pacer("1/second", clock=loop.clock)
        await pacer.wait()
        waiting = [asyncio.ensure_future(pacer.wait()) for _ in range(5)]
        await asyncio.sleep(0.1)
        waiting[1].cancel()
        await asyncio.sleep(0)
        delays = [(await pacer.reserve()).delay]
        for one in waiting[2:]:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await waiting[0] == pytest.approx(1.0)
        delays.append((await pacer.reserve()).delay)
        await pacer.aclose()
        return delays

    first, second = virtually(story)
    assert first == pytest.approx(5.9)
    assert second == pytest.approx(6.0)


def test_the_last_ones_cancelled_are_free_again() -> None:
    """Who waits behind nobody leaves no gap."""

    async def story(loop: VirtualLoop) -> float:
        pacer = Pacer("1/second", clock=loop.clock)
        turns = [await pacer.reserve() for _ in range(5)]
        for turn in turns[1:]:
            turn.give_back()
            turn.give_back()
        await pacer.aclose()
        return (await pacer.reserve()).delay

    assert virtually(story) == 1


@pytest.mark.parametrize("stall", [0.055, 0.2, 1.0, 5.0])
@pytest.mark.parametrize(("rate", "slack"), [("100/second", 0), ("1000/second", 5)])
def test_a_machine_that_stood_still_sends_nothing_at_once(rate: str, slack: int, stall: float) -> None:
    """What was missed is lost: no span of k intervals sees more than k + 1 turns, and the order stays."""

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
    begun = [at for _, at in gone]
    for intervals in (1, 10, 100):
        span = intervals * interval - 1e-6
        assert max(bisect_right(begun, at + span) - n for n, at in enumerate(begun)) <= intervals + 1 + slack
    assert max(begun) <= 300 * interval + stall + 0.1


def test_who_is_always_late_goes_all_the_same() -> None:
    """A machine that is too slow for its pace gets through."""

    async def story(loop: VirtualLoop) -> int:
        pacer, tries = Pacer("1000/second", clock=loop.clock), 0
        store = pacer._store
        submit = store.submit

        async def slow(request: Request) -> Answer:
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
    """Answers when it is told to."""

    away = True
    tries = 0

    async def submit(self, request: Request) -> Answer:
        self.tries += 1
        if self.away:
            msg = "not there"
            raise StoreError(msg)
        return await super().submit(request)


def test_everybody_waits_for_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """No turn is made up; what is bounded fails with the store's error, and each change is one line."""

    async def story(loop: VirtualLoop) -> None:
        store = Flaky(clock=loop.clock)
        pacer = Pacer("1/second", store=store)
        with pytest.raises(StoreError):
            await pacer.wait(max_wait=1)
        assert 0.7 < loop.time() <= 1
        loop.call_later(5, setattr, store, "away", False)
        waits = await asyncio.gather(pacer.wait(), pacer.wait())
        assert sorted(waits) == pytest.approx([5.2, 6.2], abs=0.21)

    with caplog.at_level(logging.WARNING, "ratelimit"):
        virtually(story)
    assert [record.message.partition(":")[0] for record in caplog.records] == ["store away", "store back"]


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
    """With the name of the field."""
    with pytest.raises(ConfigurationError, match=named):
        make()


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda pacer: pacer.wait(), "per is subscription, and 0 values"),
        (lambda pacer: pacer.wait("a", "b"), "per is subscription, and 2 values"),
        (lambda pacer: pacer.reserve(""), "the value of subscription is missing"),
        (lambda pacer: pacer.reserve(None), "the value of subscription is missing"),
        (lambda pacer: pacer.wait("a", max_wait="soon"), "max_wait"),
    ],
)
async def test_a_key_that_does_not_fit_fails(ask: Callable[[Pacer], Awaitable[Any]], named: str) -> None:
    """Before anything is taken."""
    with pytest.raises(ConfigurationError, match=named):
        await ask(Pacer("1/second", per="subscription"))


def test_threads_without_a_loop_wait_too() -> None:
    """The background loop serves them all, one after the other."""
    pacer, waits = Pacer("1000/second"), list[float]()
    threads = [threading.Thread(target=lambda: waits.append(pacer.wait_sync())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waits) == 8
    pacer.close()
    pacer.close()


async def test_a_running_loop_is_not_held_up() -> None:
    """Blocking where a loop runs is told as the mistake that it is."""
    with pytest.raises(ConfigurationError, match="hold up the event loop"):
        Pacer("1/second").wait_sync()


async def test_arrival_is_order_across_processes(redis_url: str) -> None:
    """Several pacers on one Redis, as processes have them: who asked first goes first, a turn each."""
    pacers = [Pacer("100/second", per="subscription", store=redis_url) for _ in range(3)]
    turns = [await pacers[number % 3].reserve("s") for number in range(60)]
    moments = [turn.number for turn in turns]
    assert [after - before for before, after in pairwise(moments)] == [10_000] * 59
    for turn in turns[30:]:
        turn.give_back()
    for pacer in pacers:
        await pacer.aclose()
    last = Pacer("100/second", per="subscription", store=redis_url)
    assert (await last.reserve("s")).number - moments[29] == 10_000
    await last.aclose()


def test_moving_up_takes_nothing_from_anybody() -> None:
    """Who waits behind somebody cancelled goes in that turn; another process's stay as they are."""

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


def test_turns_that_are_not_taken_in_time_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rest of the process is slow to go on, the first stays the first, and the pace is kept."""
    handed, hand_out = list[int](), Line._hand_out

    async def story(loop: VirtualLoop) -> list[tuple[int, float]]:
        pacer, gone = Pacer("100/second", clock=loop.clock), list[tuple[int, float]]()

        def slow(line: Line, turn: int) -> None:
            hand_out(line, turn)
            handed.append(turn)
            loop.now += 0.008 * (len(handed) == 3)

        async def go(number: int) -> None:
            await pacer.wait()
            gone.append((number, round(loop.time(), 3)))

        monkeypatch.setattr(Line, "_hand_out", slow)
        await asyncio.gather(*(go(number) for number in range(6)))
        assert pacer.missed == 1
        return gone

    assert virtually(story) == [(0, 0), (1, 0.01), (2, 0.03), (3, 0.04), (4, 0.05), (5, 0.06)]


def test_a_process_that_is_always_slow_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late it takes its turns."""
    hand_out = Line._hand_out

    async def story(loop: VirtualLoop) -> int:
        pacer = Pacer("100/second", clock=loop.clock)

        def slow(line: Line, turn: int) -> None:
            hand_out(line, turn)
            loop.now += 0.03

        monkeypatch.setattr(Line, "_hand_out", slow)
        await asyncio.gather(*(pacer.wait() for _ in range(5)))
        return pacer.missed

    assert 3 <= virtually(story) <= 30


def test_a_line_is_not_lost_while_somebody_waits() -> None:
    """However many other keys come and go between a turn that is handed out and one that is taken."""

    async def story(loop: VirtualLoop) -> float:
        pacer = Pacer("1/second", per="k", clock=loop.clock)
        await pacer.wait("a")
        waiting, line = asyncio.ensure_future(pacer.wait("a")), pacer._line(("a",))
        await asyncio.sleep(0)
        hand_out, once = line._hand_out, list[int]()

        async def others() -> None:
            for number in range(150):
                await pacer.wait(number)
            loop.now += 0.6

        def slow(turn: int) -> bool:
            if not once:
                once.append(1)
                tasks.append(asyncio.ensure_future(others()))
            return hand_out(turn)

        tasks = list[Any]()
        line._hand_out = slow  # type: ignore[method-assign]
        return await asyncio.wait_for(waiting, 1000)

    assert virtually(story) < 3.7


def test_closing_ends_all_waits() -> None:
    """Also of those for whom another turn is being taken from a store that is away; and it can be used again."""

    async def story(loop: VirtualLoop) -> None:
        store = Flaky(clock=loop.clock)
        store.away = False
        pacer = Pacer("10/second", store=store, clock=loop.clock)
        await pacer.wait()
        line = [asyncio.ensure_future(pacer.wait()) for _ in range(2)]
        await asyncio.sleep(0)
        store.away = True
        loop.now += 0.27
        asking = asyncio.ensure_future(pacer.wait())
        await asyncio.sleep(0.05)
        await asyncio.wait_for(pacer.aclose(), 5)
        told = await asyncio.wait_for(asyncio.gather(*line, asking, return_exceptions=True), 5)
        assert [type(each) for each in told] == [StoreUnavailable] * 3
        store.away = False
        assert await pacer.wait() < 0.3
        assert await pacer.wait() < 0.3
        await pacer.aclose()

    virtually(story)


def test_the_bound_holds_for_turns_that_were_missed() -> None:
    """Who would have to wait for another one that is far away hears it a moment after the bound."""

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


def test_nobody_keeps_a_turn_that_is_not_wanted() -> None:
    """Cancelled with the turn in the hand, or while another is taken: it goes to the next one, or back."""

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


def test_a_store_that_was_emptied_is_no_second_pace() -> None:
    """One process's turns of before and after are handed out no faster than they should be."""

    async def story(loop: VirtualLoop) -> list[float]:
        store, gone = MemoryStore(clock=loop.clock), list[float]()
        pacer = Pacer("100/second", store=store, clock=loop.clock)

        async def go() -> None:
            await pacer.wait()
            gone.append(loop.time())

        tasks = [asyncio.ensure_future(go()) for _ in range(100)]
        await asyncio.sleep(0.2)
        store._states.clear()
        tasks += [asyncio.ensure_future(go()) for _ in range(100)]
        await asyncio.gather(*tasks)
        return gone

    gone = virtually(story)
    assert len(gone) == 200
    # A turn may be half an interval late, and the next one in time.
    assert max(bisect_right(gone, at + 0.0999) - n for n, at in enumerate(gone)) <= 21
    assert max(bisect_right(gone, at + 0.0049) - n for n, at in enumerate(gone)) == 1


def test_a_turn_that_was_used_is_not_given_back() -> None:
    """`finally: turn.give_back()` does no harm; what waits goes by the store's clock also where that is set back."""

    async def story(loop: VirtualLoop) -> None:
        pacer = Pacer("1/second", clock=loop.clock)
        for number in range(3):
            turn = await pacer.reserve()
            assert await turn.wait() < 0.001
            turn.give_back()
            assert loop.time() == pytest.approx(number)
        returned = await pacer.reserve()
        returned.give_back()
        with pytest.raises(ConfigurationError, match="given back"):
            await returned.wait()
        await pacer.aclose()

    virtually(story)


def test_clocks_of_several_nodes_do_not_mix() -> None:
    """Each key goes by the clock of the server that keeps it."""

    class Nodes(MemoryStore):
        def __init__(self, loop: VirtualLoop) -> None:
            super().__init__()
            self.ahead = MemoryStore(clock=lambda: loop.clock() + 500_000)
            self.right = MemoryStore(clock=loop.clock)

        async def submit(self, request: Request) -> Answer:
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


def test_a_turn_that_cannot_be_had_is_nobodys_loss_where_it_is_not_wanted() -> None:
    """Who was cancelled meanwhile has left a turn for everybody else."""

    async def story(loop: VirtualLoop) -> None:
        returned, asked = list[int](), list[bool]()
        line = Line(1.0, lambda _, wanted: asked.append(wanted), returned.append)
        line.hear(0, 0, 0.0, 0.0)
        first, second = (asyncio.ensure_future(line.wait(turn)) for turn in (100_000, 1_100_000))
        await asyncio.sleep(0)
        loop.now = 0.9  # The first turn is missed, and another one wanted.
        line._look()
        assert asked == [True]
        first.cancel()
        await asyncio.sleep(0)
        line.failed(StoreError("away"))
        await second
        assert loop.time() == pytest.approx(1.1)

    virtually(story)
