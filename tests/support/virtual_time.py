"""An event loop in virtual time: every sleep ends at once, in the right order."""

import asyncio
from collections.abc import Callable, Coroutine
from selectors import DefaultSelector, SelectorKey
from typing import Any, TypeVar

from ratelimit.testing.clock import START

T = TypeVar("T")


class _Selector(DefaultSelector):
    """Never waits, and moves the time forward instead."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._pass_time(timeout)
        # Without a timer, the loop waits for another thread or process.
        return ready if timeout is not None else super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self._pass_time))

    def time(self) -> float:
        return self.now

    def clock(self) -> int:
        """Return this loop's time as a `Clock` (µs)."""
        return START + round(self.now * 1_000_000)

    def _pass_time(self, seconds: float) -> None:
        self.now += seconds


def virtually(make: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `make` returns in virtual time, without a pause."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(make(loop))
