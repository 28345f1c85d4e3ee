"""The reservation queue: which waiting caller gets which reservation, in virtual time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ratelimit import ConfigurationError, StoreError
from ratelimit.outbound.reservation_queue import Reservation, ReservationQueue
from tests.support.virtual_time import VirtualLoop, virtually

SECOND = 1_000_000
"""A second of the store's clock, whose zero is that of the event loop here."""


class Queue(ReservationQueue):
    """A queue with an interval of a second, and what it has asked of its pacer."""

    def __init__(self) -> None:
        self.missed: list[bool] = []
        self.cancelled: list[int] = []
        super().__init__(1.0, lambda _, is_needed: self.missed.append(is_needed), self.cancelled.append)
        self.observe_clock(0, 0, 0.0, 0.0)

    def join(self, start: int) -> "asyncio.Task[float]":
        """Wait with a reservation in a task, which returns when the caller may go on."""
        return asyncio.ensure_future(self._joined(self.wait(start)))

    async def _joined(self, waiting: Coroutine[Any, Any, None]) -> float:
        await waiting
        return asyncio.get_running_loop().time()


def test_callers_get_the_reservations_in_order() -> None:
    """The first caller gets the earliest reservation, whichever caller made it."""

    async def story(loop: VirtualLoop) -> list[float]:
        queue = Queue()
        tasks = [queue.join(start) for start in (3 * SECOND, SECOND, 2 * SECOND)]
        return list(await asyncio.gather(*tasks))

    assert virtually(story) == pytest.approx([1.0, 2.0, 3.0])


def test_a_cancelled_caller_gives_up_the_last_reservation() -> None:
    """Those behind it move up, so that the last one is left over."""

    async def story(loop: VirtualLoop) -> tuple[list[int], float]:
        queue = Queue()
        tasks = [queue.join(start * SECOND) for start in (1, 2, 3)]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return queue.cancelled, loop.time()

    cancelled, ended = virtually(story)
    assert cancelled == [3 * SECOND]
    assert ended == pytest.approx(2.0)


def test_a_missed_reservation_is_replaced_only_where_it_is_needed() -> None:
    """A second caller moves to its own, later one; the last one has none left."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        tasks = [queue.join(start * SECOND) for start in (1, 2)]
        await asyncio.sleep(0)
        loop.now = 1.6  # More than half an interval late.
        queue.dispatch()
        assert (queue.missed, [task.done() for task in tasks]) == ([True], [False, False])
        queue.add(3 * SECOND)
        assert await asyncio.gather(*tasks) == pytest.approx([2.0, 3.0])
        assert queue.cancelled == []

    virtually(story)


def test_a_failed_replacement_ends_the_last_caller() -> None:
    """The others have reservations; without callers nothing fails."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        first, last = (queue.join(start * SECOND) for start in (1, 2))
        await asyncio.sleep(0)
        loop.now = 1.6
        queue.dispatch()
        queue.fail(StoreError("down"))
        with pytest.raises(StoreError, match="down"):
            await last
        assert await first == pytest.approx(2.0)

    virtually(story)


def test_a_failed_replacement_that_no_caller_needs_is_ignored() -> None:
    """A cancelled caller has left its reservation to the others."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        first, second = (queue.join(start) for start in (100_000, 1_100_000))
        await asyncio.sleep(0)
        loop.now = 0.9  # The first reservation is missed, and another one is requested.
        queue.dispatch()
        assert queue.missed == [True]
        first.cancel()
        await asyncio.sleep(0)
        queue.fail(StoreError("down"))
        await second
        assert loop.time() == pytest.approx(1.1)

    virtually(story)


def test_closing_fails_all_callers_and_cancels_all_reservations() -> None:
    """Other processes can use them."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        tasks = [queue.join(start * SECOND) for start in (1, 2)]
        await asyncio.sleep(0)
        queue.close(StoreError("closed"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["closed"] * 2
        assert sorted(queue.cancelled) == [SECOND, 2 * SECOND]

    virtually(story)


def test_the_quickest_reply_tells_the_clock_best() -> None:
    """A slow reply does not delay reservations, and a clock that was set back is believed."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        loop.now = 10.0
        assert queue.lateness(10 * SECOND) == pytest.approx(0.0)
        queue.observe_clock(9 * SECOND, 0, 9.0, 10.0)  # The reply took a second.
        assert queue.lateness(10 * SECOND) == pytest.approx(0.0)
        queue.observe_clock(4 * SECOND, 0, 10.0, 10.0)  # The store is six seconds behind now.
        assert queue.lateness(4 * SECOND) == pytest.approx(0.0)

    virtually(story)


def test_a_reservation_is_used_or_cancelled_once() -> None:
    """A cancelled caller cancels it; one that was used stays used."""

    async def story(loop: VirtualLoop) -> None:
        queue = Queue()
        used, left = Reservation(queue, SECOND), Reservation(queue, 2 * SECOND)
        assert used.delay == 1.0
        assert await used.wait() == pytest.approx(0.0)
        assert used.delay == 0.0
        used.cancel()
        waiting = asyncio.ensure_future(left.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        left.cancel()
        assert queue.cancelled == [2 * SECOND]
        for reservation in (used, left):
            with pytest.raises(ConfigurationError, match="this reservation was used or cancelled: make another one"):
                await reservation.wait()

    virtually(story)
