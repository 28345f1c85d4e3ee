"""The throttle: when each caller may go on, in virtual time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import ConfigurationError, LimitExceeded, MemoryStore, RedisStore, Throttle
from tests.support.virtual_time import VirtualLoop, virtually


def test_a_window_is_filled_at_once_and_the_others_wait_for_room() -> None:
    """Callers go on in the order of arrival, no window holds more than the limit, and no wait is longer than needed."""

    async def story(loop: VirtualLoop) -> list[tuple[int, float]]:
        throttle, gone = Throttle("10/minute", clock=loop.clock), list[tuple[int, float]]()

        async def go(number: int) -> None:
            async with throttle:
                gone.append((number, loop.time()))

        tasks = []
        for number in range(25):
            tasks.append(asyncio.ensure_future(go(number)))
            await asyncio.sleep(1)
        await asyncio.gather(*tasks)
        await throttle.aclose()
        return gone

    gone = virtually(story)
    assert [number for number, _ in gone] == list(range(25))
    starts = [at for _, at in gone]
    assert starts[:10] == list(range(10))
    assert starts[10:] == pytest.approx([start + 60.001 for start in starts[:15]], abs=0.002)


def test_a_wait_beyond_the_bound_fails_as_soon_as_it_is_known() -> None:
    """The first caller fails at once, one behind others when its time is over; neither is counted."""

    async def story(loop: VirtualLoop) -> None:
        throttle = Throttle("1/minute", max_wait=10, clock=loop.clock)
        assert await throttle.wait() == 0
        with pytest.raises(LimitExceeded, match="'throttle' has no room within max_wait=10 s; it has in 60") as refused:
            await throttle.wait()
        assert loop.time() == 0
        assert refused.value.decision.retry_after == pytest.approx(60, abs=0.01)
        patient = asyncio.ensure_future(throttle.wait(max_wait=100))
        await asyncio.sleep(1)
        with pytest.raises(LimitExceeded):
            await throttle.wait()
        assert loop.time() == pytest.approx(11)
        assert await patient == pytest.approx(60, abs=0.01)
        assert await throttle.wait(max_wait=61) == pytest.approx(60, abs=0.01)

    virtually(story)


def test_a_cancelled_caller_leaves_the_queue() -> None:
    """The next caller takes its place, and no unit is lost."""

    async def story(loop: VirtualLoop) -> None:
        throttle = Throttle("1/second", clock=loop.clock)
        await throttle.wait()
        first, second = asyncio.ensure_future(throttle.wait()), asyncio.ensure_future(throttle.wait())
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == pytest.approx(1.0, abs=0.01)

    virtually(story)


def test_a_heavy_call_is_not_overtaken() -> None:
    """A heavy call waits for its room before a light one behind it; one that never has room fails."""

    async def story(loop: VirtualLoop) -> None:
        throttle = Throttle("10/second", burst=0.2, clock=loop.clock)
        await throttle.wait(cost=5)
        waits = await asyncio.gather(throttle.wait(cost=12), throttle.wait())
        assert waits == pytest.approx([1, 2], abs=0.05)
        with pytest.raises(ConfigurationError, match="cost: 13 units never have room in 10/second"):
            await throttle.wait(cost=13)

    virtually(story)


def test_throttles_of_one_name_share_a_limit() -> None:
    """Throttles of one name on one store count together, those of other names apart."""

    async def story(loop: VirtualLoop) -> list[float]:
        store = MemoryStore(clock=loop.clock)
        one, two, other = (Throttle("2/second", name=name, store=store, clock=loop.clock) for name in ("a", "a", "b"))
        return [await throttle.wait() for throttle in (one, two, other, two)]

    assert virtually(story) == pytest.approx([0, 0, 0, 1], abs=0.01)


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: Throttle("10"), ConfigurationError, "'10' is not a rate"),
        (lambda: Throttle("0/second"), ValidationError, "rate"),
        (lambda: Throttle("1/second", burst=2), ValidationError, "burst"),
        (lambda: Throttle("1/second", name="ü"), ValidationError, "name"),
        (lambda: Throttle("1/second", max_wait=-1), ConfigurationError, "max_wait"),
        (lambda: Throttle("1/second", store="postgres://x"), ValidationError, "store"),
        (lambda: Throttle(5), ConfigurationError, "rate"),  # type: ignore[arg-type]
        (lambda: Throttle(), ConfigurationError, "rate: a throttle needs a rate, a concurrency, or both"),  # noqa: PLW0108
        (lambda: Throttle(concurrency=0), ConfigurationError, "concurrency: must be an integer from 1 to"),
        (lambda: Throttle("1/second", concurrency=-1), ConfigurationError, "concurrency"),
        (lambda: Throttle("1/second", concurrency=True), ConfigurationError, "concurrency"),
        (lambda: Throttle("1/second", concurrency=1.0), ConfigurationError, "concurrency"),  # type: ignore[arg-type]
        (lambda: Throttle(concurrency="2"), ConfigurationError, "concurrency"),  # type: ignore[arg-type]
        (lambda: asyncio.run(Throttle(concurrency=2).wait()), ConfigurationError, "rate: this throttle has none"),
    ],
)
def test_wrong_values_fail_at_once(make: Callable[[], Any], error: type[Exception], named: str) -> None:
    """The error names the argument."""
    with pytest.raises(error, match=named):
        make()


def test_threads_without_a_loop_wait_too() -> None:
    """`with throttle:` works in threads, on the system's clock."""
    throttle, gone = Throttle("4/second"), list[int]()

    def go() -> None:
        with throttle:
            gone.append(1)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gone) == 4
    with pytest.raises(LimitExceeded):
        throttle.wait_sync(max_wait=0)
    throttle.close()


async def test_on_redis_two_throttles_count_together(redis_url: str) -> None:
    """As two processes do: the calls of one count for the other."""
    one, two = (Throttle("3/minute", store=RedisStore(redis_url, timeout=10)) for _ in range(2))
    for throttle in (one, two, one):
        assert await throttle.wait(max_wait=1) < 1
    for throttle in (one, two):
        with pytest.raises(LimitExceeded):
            await throttle.wait(max_wait=1)
        await throttle.aclose()


def test_each_event_loop_has_a_queue() -> None:
    """A lock belongs to one loop; the queues of closed loops are dropped."""
    throttle = Throttle("100/second")
    for _ in range(3):
        asyncio.run(throttle.wait())
        assert len(throttle.queues) == 1


Gone = list[tuple[object, float]]


def block(throttle: Throttle, gone: Gone, seconds: float = 1) -> Callable[[object], asyncio.Task[None]]:
    """Return a function that starts a block of so many seconds, and records when it began."""

    async def run(name: object) -> None:
        async with throttle:
            gone.append((name, asyncio.get_running_loop().time()))
            await asyncio.sleep(seconds)

    return lambda name: asyncio.ensure_future(run(name))


def test_blocks_beyond_the_concurrency_wait_in_turn() -> None:
    """At most so many run at once, and the next one begins when one ends; none is refused, and no rate is needed."""

    async def story(loop: VirtualLoop) -> None:
        throttle, gone = Throttle(concurrency=3, clock=loop.clock), Gone()
        await asyncio.gather(*map(block(throttle, gone), range(300)))
        assert [name for name, _ in gone] == list(range(300))
        assert [at for _, at in gone] == pytest.approx([number // 3 for number in range(300)])
        await throttle.aclose()

    virtually(story)


def test_a_block_waits_for_the_rate_and_for_the_concurrency() -> None:
    """Whichever has room later; while it waits for a permit it counts nothing."""

    async def story(loop: VirtualLoop) -> None:
        throttle, gone = Throttle("3/10s", concurrency=2, clock=loop.clock), Gone()
        await asyncio.gather(*map(block(throttle, gone), range(3)))
        assert gone == [(0, 0), (1, 0), (2, pytest.approx(1))]
        # The window has room for two at 10 s and one at 11 s, since the third was counted when its block began.
        gone.clear()
        await asyncio.gather(*map(block(throttle, gone, 0.1), range(3)))
        assert [at for _, at in gone] == pytest.approx([10, 10, 11], abs=0.02)

    virtually(story)


def test_a_block_that_fails_or_is_cancelled_ends() -> None:
    """So does the wait of a caller that is cancelled; the next ones go on at once, in the same order."""

    async def story(loop: VirtualLoop) -> None:
        throttle, gone = Throttle(concurrency=1, clock=loop.clock), Gone()
        with pytest.raises(ZeroDivisionError):
            async with throttle:
                raise ZeroDivisionError
        tasks = [block(throttle, gone)(number) for number in range(6)]
        await asyncio.sleep(0.5)
        for number in (0, 1, 3):  # One that runs, the next one, and one behind it.
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gone == [(0, 0), (2, pytest.approx(0.5)), (4, pytest.approx(1.5)), (5, pytest.approx(2.5))]

    virtually(story)


def test_a_wait_for_a_permit_is_bounded_too() -> None:
    """It ends when the bound is over, not before: a block may end at any moment."""

    async def story(loop: VirtualLoop) -> None:
        throttle, gone = Throttle(concurrency=1, max_wait=1.5, clock=loop.clock), Gone()
        start = block(throttle, gone, 1.2)
        first, second = start("first"), start("second")
        await asyncio.sleep(0.1)
        third, began = start("third"), loop.time()
        with pytest.raises(LimitExceeded, match=r"'throttle' has no room within max_wait=1.5 s \[RL705\]$"):
            await third
        assert loop.time() - began == pytest.approx(1.5)
        await asyncio.gather(first, second)
        assert gone == [("first", 0), ("second", pytest.approx(1.2))]

    virtually(story)


def test_a_long_block_keeps_its_permit() -> None:
    """For hours: the lease of the permit is renewed until the block ends."""

    async def story(loop: VirtualLoop) -> None:
        throttle, gone = Throttle(concurrency=1, clock=loop.clock), Gone()
        await asyncio.gather(*map(block(throttle, gone, 10_000), range(2)))
        assert gone == [(0, 0), (1, pytest.approx(10_000))]

    virtually(story)


def test_wait_is_for_the_rate_alone() -> None:
    """It has no end, so it takes no permit."""

    async def story(loop: VirtualLoop) -> None:
        throttle = Throttle("2/10s", concurrency=1, clock=loop.clock)
        waits = [await throttle.wait() for _ in range(3)]
        assert waits == pytest.approx([0, 0, 10], abs=0.02)
        assert repr(throttle) == "<Throttle throttle 2/10 seconds, 1 at once>"

    virtually(story)


def test_threads_and_event_loops_share_the_concurrency() -> None:
    """`with` in threads, and `async with` in event loops, run one after the other where one may run at once."""
    throttle, running, peak, ended = Throttle(concurrency=1), list[int](), list[int](), list[int]()

    def run() -> None:
        running.append(1)
        peak.append(len(running))
        running.pop()
        ended.append(1)

    def go() -> None:
        with throttle:
            run()

    async def go_async() -> None:
        async with throttle:
            await asyncio.sleep(0)
            run()

    threads = [threading.Thread(target=go) for _ in range(10)]
    threads += [threading.Thread(target=lambda: asyncio.run(go_async())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(ended), max(peak)) == (13, 1)
    throttle.close()


async def test_on_redis_two_throttles_share_the_concurrency(redis_url: str) -> None:
    """As two processes do: a block of one keeps out those of the other, until it ends."""
    one, two = (
        Throttle(concurrency=1, store=RedisStore(redis_url, timeout=10), max_wait=bound) for bound in (None, 0.1)
    )
    async with one:
        with pytest.raises(LimitExceeded):
            async with two:
                pass
    async with two:
        pass
    for throttle in (one, two):
        await throttle.aclose()
