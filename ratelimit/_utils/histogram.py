"""Histograms as plain integers."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

logger = logging.getLogger("ratelimit")


class Histogram:
    """Counts observations by upper bounds (`counts` has one more, for those above all), and sums them up.

    `relays` are handed each observation: for libraries that want to count by themselves.
    """

    __slots__ = ("bounds", "counts", "relays", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0
        self.relays: list[Callable[[float], object]] = []

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        for relay in self.relays:
            try:
                relay(value)
            except Exception:
                logger.exception("an observation could not be handed on; no more of them are [RL510]")
                self.relays = [each for each in self.relays if each is not relay]

    @property
    def number(self) -> int:
        """The number of observations."""
        return sum(self.counts)
