"""A clock that stands still until it is told to move."""

START = 1_700_000_000_000_000
"""An instant in November 2023, in microseconds."""


class ManualClock:
    def __init__(self, start: int = START) -> None:
        self.now = start

    def __call__(self) -> int:
        return self.now

    def advance(self, *, ms: int = 0, seconds: float = 0) -> None:
        self.now += ms * 1000 + round(seconds * 1_000_000)
