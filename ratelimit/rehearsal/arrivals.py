"""Arrivals: how many requests each caller makes in the buckets of a window, and what a limit would do to them."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ratelimit.algorithms.sliding_window import SlidingWindowView
from ratelimit.algorithms.sliding_window_state import SlidingWindowState
from ratelimit.config.fields import share_of
from ratelimit.model.effective_limit import WINDOW_BUCKETS, EffectiveRate

MAX_CALLERS: Final = 100_000
"""Callers whose arrivals are kept; more are left out, and the suggestion says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a limit would do: callers and requests that it refuses, and the longest wait in seconds."""

    callers: int = 0
    requests: int = 0
    longest_wait: float = 0.0


class Arrivals:
    """The requests of callers by bucket: a 64th of a window of `seconds`, as the sliding window has them."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._bucket_us = max(1000, -(-seconds * 1_000_000 // WINDOW_BUCKETS))
        self._counted = -(-seconds * 1_000_000 // self._bucket_us)
        self.callers: dict[str, dict[int, int]] = {}
        self.requests = self.left_out = 0

    def add(self, caller: str, at: int) -> None:
        """Count a request of a caller at `at` (epoch µs)."""
        self.requests += 1
        buckets = self.callers.get(caller)
        if buckets is None:
            if len(self.callers) >= MAX_CALLERS:
                self.left_out += 1
                return
            buckets = self.callers[caller] = {}
        bucket = at // self._bucket_us
        buckets[bucket] = buckets.get(bucket, 0) + 1

    def between(self, begin: int, end: int) -> "Arrivals":
        """Return the arrivals from one instant to another (epoch µs)."""
        first, last, part = begin // self._bucket_us, end // self._bucket_us, Arrivals(self.seconds)
        for caller, buckets in self.callers.items():
            kept = {bucket: count for bucket, count in buckets.items() if first <= bucket < last}
            if kept:
                part.callers[caller] = kept
                part.requests += sum(kept.values())
        return part

    def without(self, callers: Iterable[str]) -> "Arrivals":
        """Return the arrivals of all other callers."""
        gone, part = set(callers), Arrivals(self.seconds)
        part.callers = {caller: buckets for caller, buckets in self.callers.items() if caller not in gone}
        part.requests = sum(sum(buckets.values()) for buckets in part.callers.values())
        return part

    def peaks(self, windows: int = 1) -> dict[str, int]:
        """Return the most that each caller has asked for in any so many windows in a row; the oldest bucket counts in full."""
        span = self._counted * windows + 1
        return {caller: _peak(buckets, span) for caller, buckets in self.callers.items()}

    def effect(self, limit: int, burst: float = 0.0, peaks: Mapping[str, int] | None = None) -> Effect:
        """Return what a limit would do, by the algorithm itself, given each caller's peak; a caller below it is never refused."""
        peaks = peaks or self.peaks()
        rate = EffectiveRate(policy="", scope="", limit=limit, window=self.seconds, burst=share_of(limit, burst))
        callers = requests = longest = 0
        for caller, buckets in self.callers.items():
            if peaks[caller] > limit:
                refused, wait = self._refused(buckets, rate)
                callers += refused > 0
                requests += refused
                longest = max(longest, wait)
        return Effect(callers=callers, requests=requests, longest_wait=longest / 1000)

    def _refused(self, buckets: Mapping[int, int], rate: EffectiveRate) -> tuple[int, int]:
        """Return how many requests of one caller are refused, and the longest wait in ms; those of a bucket come at its middle."""
        state, refused, longest = SlidingWindowState(), 0, 0
        for bucket in sorted(buckets):
            view = SlidingWindowView(state, rate, (bucket * self._bucket_us + self._bucket_us // 2) // 1000)
            wanted = buckets[bucket]
            admitted = max(0, min(wanted, view.available))
            if admitted:
                view.charge(admitted)
            if admitted < wanted:
                refused += wanted - admitted
                longest = max(longest, view.status(1)[2])
        return refused, longest


def _peak(buckets: Mapping[int, int], span: int) -> int:
    window, total, most = deque[tuple[int, int]](), 0, 0
    for bucket in sorted(buckets):
        window.append((bucket, buckets[bucket]))
        total += buckets[bucket]
        while window[0][0] <= bucket - span:
            total -= window.popleft()[1]
        most = max(most, total)
    return most


class Simultaneous:
    """How many requests of each caller were under way at once."""

    def __init__(self) -> None:
        self._ends: dict[str, list[int]] = {}
        self._levels: dict[str, dict[int, int]] = {}

    def add(self, caller: str, at: int, ends: int) -> None:
        """Count a request that lasted from one instant to another (µs); requests come in the order in which they began."""
        running = [end for end in self._ends.get(caller, ()) if end > at]
        running.append(ends)
        if len(self._ends) < MAX_CALLERS or caller in self._ends:
            self._ends[caller] = running
            levels = self._levels.setdefault(caller, {})
            levels[len(running)] = levels.get(len(running), 0) + 1

    def highest(self, share: float = 0.999) -> dict[str, int]:
        """Return, for each caller, the number at once that so large a share of its requests did not exceed."""
        return {caller: _quantile(levels, share) for caller, levels in self._levels.items()}


def _quantile(levels: Mapping[int, int], share: float) -> int:
    wanted, seen = share * sum(levels.values()), 0
    for level in sorted(levels):
        seen += levels[level]
        if seen >= wanted:
            return level
    return max(levels)
