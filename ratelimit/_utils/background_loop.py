"""Runs coroutines for threads that have no event loop."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ratelimit.errors import ConfigurationError

T = TypeVar("T")


class _BackgroundLoop:
    """An event loop in a thread of its own, started when it is needed first; the thread ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="ratelimit", daemon=True).start()
            return self._loop

    def reset(self) -> None:
        """Start another loop next time: a forked child has the loop, but not the thread that runs it."""
        self._lock, self._loop = threading.Lock(), None


_background_loop = _BackgroundLoop()

os.register_at_fork(after_in_child=_background_loop.reset)


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in the background loop and return its result; an interrupt cancels it.

    In a thread whose event loop runs it raises `ConfigurationError`, since it would block that loop.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented form raises
        work.close()
        raise ConfigurationError("this would block the running event loop: use `async with` or `await` [RL311]")
    future = asyncio.run_coroutine_threadsafe(work, _background_loop.get())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
