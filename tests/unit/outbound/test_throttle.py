"""The throttle: when each caller may go on, in virtual time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit import ConfigurationError, LimitExceeded, MemoryStore, Throttle
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
    one, two = (Throttle("3/minute", store=redis_url) for _ in range(2))
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
