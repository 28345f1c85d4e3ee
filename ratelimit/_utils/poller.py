"""Repeats an action in the background."""

import asyncio
from collections.abc import Awaitable, Callable
from weakref import ref

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.errors import ConfigurationError


class Poller:
    """Awaits `action` at once and then every `interval` seconds, in the background of each event loop that starts it.

    The action must not raise. The owner's last reference ends the polling: a timer holds only a weak one.
    """

    def __init__(self, action: Callable[[], Awaitable[None]], interval: float) -> None:
        self._action, self._interval = action, interval
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._tasks = BackgroundTasks()
        self._first: asyncio.Task[None] | None = None
        self._latest: asyncio.AbstractEventLoop | None = None

    @property
    def is_running(self) -> bool:
        """Whether the running event loop is the one that was started last, and was not stopped.

        Raises `ConfigurationError` where none of asyncio runs: under trio.
        """
        try:
            return asyncio.get_running_loop() is self._latest
        except RuntimeError:
            raise ConfigurationError(
                "there is no event loop of asyncio: serve the app by asyncio (hypercorn -k asyncio), not by trio [RL220]"
            ) from None

    @property
    def next_polls(self) -> list[float]:
        """When each event loop polls next, by its own clock."""
        return [timer.when() for timer in self._timers.values()]

    async def start(self, wait: float = 0.0) -> bool:
        """Poll from now on as long as the running event loop runs; again does nothing.

        Returns when the first poll has ended, but after `wait` seconds at the latest, and whether it was waited for in
        vain.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._timers:
            # A timer refers to its loop, so a weak dictionary would keep closed loops.
            self._timers = {each: timer for each, timer in list(self._timers.items()) if not each.is_closed()}
            self._first = self.poll()
        in_vain = False
        if wait and self._first is not None and self._first.get_loop() is loop:
            # A caller that is cancelled here does not end the poll.
            await asyncio.wait([self._first], timeout=wait)
            in_vain = not self._first.done()
        self._latest = loop
        return in_vain

    def stop(self) -> None:
        """Poll no more in the running event loop."""
        self._latest = None
        timer = self._timers.pop(asyncio.get_running_loop(), None)
        if timer is not None:
            timer.cancel()

    async def aclose(self) -> None:
        """Poll no more in the running event loop, and end a poll that is under way."""
        self.stop()
        await self._tasks.cancel()

    def poll(self) -> "asyncio.Task[None]":
        """Poll now, in the background, and again after the interval."""
        loop = asyncio.get_running_loop()
        if loop in self._timers:
            self._timers[loop].cancel()
        self._timers[loop] = loop.call_later(self._interval, _poll_again, ref(self), loop)
        return self._tasks.spawn(self._poll())

    async def _poll(self) -> None:
        await self._action()


def _poll_again(poller: "ref[Poller]", loop: asyncio.AbstractEventLoop) -> None:
    found = poller()
    if found is not None and loop in found._timers:  # noqa: SLF001 - of the class above
        found.poll()
