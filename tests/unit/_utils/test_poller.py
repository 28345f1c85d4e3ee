"""Pollers: an action that is repeated in the background of each event loop, in virtual time."""

import asyncio
import gc
from weakref import ref

from ratelimit._utils.poller import Poller
from tests.support.virtual_time import VirtualLoop, virtually


class Action:
    """An action that records when it was called (seconds), and takes `duration` seconds."""

    def __init__(self, duration: float = 0.0) -> None:
        self.duration = duration
        self.called: list[float] = []

    async def __call__(self) -> None:
        self.called.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.duration)


def test_a_poller_polls_at_once_and_at_every_interval() -> None:
    """Starting it again changes nothing, and `stop` ends it."""

    async def play(loop: VirtualLoop) -> None:
        action = Action()
        poller = Poller(action, 2.0)
        assert not poller.is_running
        await poller.start()
        await poller.start()
        assert poller.is_running
        await asyncio.sleep(5)
        assert action.called == [0.0, 2.0, 4.0]
        assert poller.next_polls == [6.0]
        poller.stop()
        await asyncio.sleep(10)
        assert not poller.is_running
        assert (len(action.called), poller.next_polls) == (3, [])

    virtually(play)


def test_a_start_waits_for_the_first_poll_but_not_for_ever() -> None:
    """`start` returns with the end of the first poll or after `wait` seconds; the poll goes on either way."""

    async def play(loop: VirtualLoop) -> None:
        await Poller(Action(0.5), 10.0).start(wait=2.0)
        assert loop.time() == 0.5
        slow = Action(5.0)
        poller = Poller(slow, 10.0)
        await poller.start(wait=2.0)
        assert loop.time() == 2.5
        waiting = asyncio.create_task(poller.start(wait=9.0))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await poller.start(wait=9.0)
        assert (loop.time(), slow.called) == (5.5, [0.5])
        poller.stop()

    virtually(play)


def test_each_event_loop_polls_for_itself() -> None:
    """`is_running` concerns the loop that started last; stopping one leaves the other's timer alone."""
    poller = Poller(Action(), 1.0)

    async def start() -> bool:
        await poller.start()
        return poller.is_running

    async def stop() -> None:
        assert not poller.is_running
        poller.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as one, asyncio.Runner(loop_factory=VirtualLoop) as two:
        assert one.run(start())
        assert two.run(start())
        one.run(stop())
        assert len(poller.next_polls) == 1
        two.run(asyncio.sleep(1.5))


def test_timers_of_closed_loops_are_forgotten() -> None:
    """A test client may start one loop for each request, and stop none."""
    poller = Poller(Action(), 1.0)
    for _ in range(5):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(poller.start(wait=5.0))
    assert len(poller.next_polls) == 1


def test_an_extra_poll_puts_off_the_next_one() -> None:
    """There is one timer for each loop, however often it is polled by hand."""

    async def play(loop: VirtualLoop) -> None:
        action = Action()
        poller = Poller(action, 1.0)
        await poller.start()
        await asyncio.sleep(0.5)
        await poller.poll()
        await asyncio.sleep(1.75)
        assert action.called == [0.0, 0.5, 1.5]
        poller.stop()

    virtually(play)


def test_an_owner_that_is_gone_polls_no_more() -> None:
    """The timer holds a weak reference: without any other the poller is collected."""

    async def play(loop: VirtualLoop) -> None:
        action = Action()
        poller = Poller(action, 1.0)
        await poller.start()
        await asyncio.sleep(0.5)
        gone = ref(poller)
        del poller
        gc.collect()
        assert gone() is None
        await asyncio.sleep(5)
        assert action.called == [0.0]

    virtually(play)
