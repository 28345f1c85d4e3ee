"""A clock that stands still until it is told to move."""

from typing import Final

START: Final = 1_700_000_000_000_000
"""An instant in November 2023, in microseconds."""


class ManualClock:
    """Tell the time that it was told, in integer microseconds since the epoch; for stores, limiters and throttles."""

    def __init__(self, start: int = START) -> None:
        self.now = start

    def __call__(self) -> int:
        """Return the time."""
        return self.now

    def advance(self, *, ms: int = 0, seconds: float = 0) -> None:
        """Move forward, or back with less than zero."""
        self.now += ms * 1000 + round(seconds * 1_000_000)
