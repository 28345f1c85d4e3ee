"""The one place that reads the time."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""A callable that returns integer microseconds since the epoch."""


def system_clock() -> int:
    """Return this machine's wall clock, in integer microseconds since the epoch."""
    return time.time_ns() // 1000


monotonic: Callable[[], float] = time.monotonic
"""Returns the seconds of a clock that never steps back, to measure waits by."""
