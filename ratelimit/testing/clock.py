"""A clock for tests, which the test moves."""

from typing import Final

START: Final = 1_700_000_000_000_000
"""Where a `ManualClock` starts: epoch microseconds, in November 2023."""


class ManualClock:
    """A clock that stands still until `advance` moves it; for stores, limiters and throttles.

    `now` is in integer microseconds since the epoch.
    """

    def __init__(self, start: int = START) -> None:
        self.now = start

    def __call__(self) -> int:
        """Return the time in microseconds since the epoch."""
        return self.now

    def advance(self, *, ms: int = 0, seconds: float = 0) -> None:
        """Move the clock forward; negative values move it back."""
        self.now += ms * 1000 + round(seconds * 1_000_000)
