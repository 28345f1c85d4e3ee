"""What all who wait share: a bound in seconds, and an event loop for those who have none."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ratelimit.errors import ConfigurationError

T = TypeVar("T")


class _Background:
    """Starts its loop when it is first needed; the thread ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="ratelimit", daemon=True).start()
            return self._loop


_background = _Background()


def check_wait(max_wait: object) -> float | None:
    """Return a bound on a wait in seconds (`None`: there is none), or raise `ConfigurationError`."""
    if max_wait is None:
        return None
    if isinstance(max_wait, bool) or not isinstance(max_wait, (int, float)) or not max_wait >= 0:
        raise ConfigurationError(f"max_wait: must be seconds, 0 or more, or None; got {max_wait!r:.50}")
    return float(min(max_wait, 10**18))


def _forget() -> None:
    # A child that was forked has the loop, and not the thread that runs it.
    global _background  # noqa: PLW0603
    _background = _Background()


os.register_at_fork(after_in_child=_forget)


def in_background(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` in the background and return what it returns; whoever is interrupted meanwhile cancels it.

    In a thread whose event loop runs it raises `ConfigurationError`: it would hold up that loop.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented form raises
        work.close()
        raise ConfigurationError("this would hold up the event loop that runs: use `async with` or `await`")
    future = asyncio.run_coroutine_threadsafe(work, _background.loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
