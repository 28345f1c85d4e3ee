"""Clocks: the wall clock of this machine, and one that never steps back."""

import time

from ratelimit.clock import monotonic, system_clock


def test_the_system_clock_counts_microseconds_since_the_epoch() -> None:
    """It is the clock that `time.time` reads, in integers."""
    before, now, after = time.time_ns() // 1000, system_clock(), time.time_ns() // 1000
    assert isinstance(now, int)
    assert before <= now <= after


def test_the_monotonic_clock_never_steps_back() -> None:
    """It counts seconds from an instant of its own."""
    moments = [monotonic() for _ in range(100)]
    assert moments == sorted(moments)
