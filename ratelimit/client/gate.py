"""One limit of a server, as far as its answers tell of it.

Instants are seconds of a clock that only goes forward. Nothing here waits: who does is told for how long.
"""

import math
from typing import Final

from ratelimit.client.advice import Advice

_GLANCE: Final = 1.0
"""Seconds after which a request looks again where others are under way and a limit is not renewed yet."""

_UNKNOWN: Final = 2**62


class Gate:
    """One limit of a server: how much of it is left for certain, and when there is more.

    What is left is what the last answers said, less what was sent since, or is still under way and may have come
    after. Where nothing is left, one request goes ahead when the limit is renewed, and its answer says how many may
    follow.
    """

    def __init__(self, slow_below: float, longest: float) -> None:
        self._slow_below, self._longest = slow_below, longest
        self.limit: int | None = None
        self.left: int | None = None
        self.opens = self.renewed = self._last = -math.inf
        self.methods: set[str] = set()
        self._sent = self._newest = self._probe = 0
        self._flying: dict[int, int] = {}

    def wait(self, now: float) -> float:
        """Return the seconds until a request may go, or until it should look again; infinite: when an answer has come."""
        if self.left is None:
            return 0.0
        if self.left <= 0:
            return self._wait_for_more(now)
        if self.limit is None or self.left >= self._slow_below * self.limit or now >= self.renewed:
            return 0.0
        pace = (self.renewed - self._last) / (self.left + 1)
        return max(0.0, self._last + min(pace, self._longest) - now)

    def _wait_for_more(self, now: float) -> float:
        if now < self.opens:
            return self.opens - now
        if self.opens == -math.inf and self._flying and now < self.renewed:
            return min(self.renewed - now, _GLANCE)
        # Renewed, as it was told: one looks ahead. Else what is under way will say.
        renewed = max(self.opens, self.renewed) > -math.inf
        return math.inf if (self._probe in self._flying if renewed else self._flying) else 0.0

    def go(self, now: float) -> int:
        """Let a request go, and return its number."""
        looks_ahead = self.left is not None and self.left <= 0
        number = self.join()
        self._last = now
        if looks_ahead:
            self._probe = number
        return number

    def join(self) -> int:
        """Count a request that is under way already, and return its number."""
        self._sent += 1
        self._flying[self._sent] = _UNKNOWN
        if self.left is not None:
            self.left -= 1
        return self._sent

    def lost(self, number: int) -> None:
        """Take note that there is no answer."""
        self._flying.pop(number, None)

    def refused(self, number: int, seconds: float | None, now: float) -> None:
        """Take note that a request was refused, for so many seconds."""
        self._flying.pop(number, None)
        self._newest = max(self._newest, number)
        self.left = 0
        self.hold(seconds or 0.0, now)

    def hold(self, seconds: float, now: float) -> None:
        """Let nobody go for so many seconds."""
        self.opens = max(self.opens, now + seconds)

    def admitted(self, number: int, advice: Advice, now: float) -> None:
        """Take note of an answer that says what remains."""
        remaining = advice.remaining or 0
        lowest, certain = self._count(number, remaining)
        # Of two that were under way together nobody knows which was counted first: the lower number has both.
        for other, low in self._flying.items():
            self._flying[other] = min(low, remaining)
        if number > self._newest:
            self._newest, self.limit, self.left = number, advice.limit, certain
            self.renewed = now + (advice.reset or 0.0)
            if lowest > 0:
                self.opens = -math.inf
        elif now >= self.opens:
            self.left = max(self.left or 0, certain)
        if not remaining:
            self.hold(advice.opens or 0.0, now)

    def has_more(self, number: int, remaining: int, now: float) -> None:
        """Take note of an answer that speaks of another limit, of which less is left than of this one."""
        _, certain = self._count(number, remaining)
        if self.left is not None and now >= self.opens:
            self.left = max(self.left, certain)

    def _count(self, number: int, remaining: int) -> tuple[int, int]:
        """Return the lowest number heard while a request was under way, and how many may follow it for certain."""
        lowest = min(remaining, self._flying.pop(number, _UNKNOWN))
        older = sum(other < number for other in self._flying)
        return lowest, lowest - (self._sent - number) - older

    def silent(self, now: float) -> None:
        """Take note of an answer that says nothing of limits: where this one should be open, it is."""
        if self.left is not None and self.left <= 0 and now >= self.opens:
            self.left = None
