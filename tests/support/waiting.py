"""Waiting for what other processes do in real time, which no injected clock can move."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any


def until(ready: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait until something holds; fails with `what` if that takes longer, as on no machine that still works."""
    deadline = monotonic() + seconds
    while not ready():
        assert monotonic() < deadline, what
        pause()


def pause() -> None:
    """Give another process 10 ms."""
    threading.Event().wait(0.01)
