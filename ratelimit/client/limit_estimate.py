"""Estimate of one limit of a server, learned from its responses.

Instants are seconds of a monotonic clock. No function here waits: `delay` returns how long the caller has to.
"""

import math
from collections.abc import Set as AbstractSet
from typing import Final

from ratelimit.client.response_limits import ResponseLimits

_RECHECK_S: Final = 1.0
"""Seconds after which a delay is computed again while requests are in flight and the limit has not reset yet."""

_UNREPORTED: Final = 2**62
"""The lowest `remaining` seen by a request in flight before any response has reported one: more than any limit."""


class LimitEstimate:
    """One limit of a server: how many units certainly remain, and when there are more.

    `remaining` is what the last responses reported, less the requests that were sent since, or that are in flight and
    may be counted later. `None` means that the limit is unknown or gone, and holds back no request. Where nothing
    remains, one request is sent as a probe when the limit resets, and its response reports how many may follow.

    `methods` are the HTTP methods that the limit was seen with. Below `slow_below` of the limit, requests are spread
    over the time until it resets, with at most `max_spacing` seconds between two.
    """

    def __init__(self, slow_below: float, max_spacing: float) -> None:
        self._slow_below, self._max_spacing = slow_below, max_spacing
        self.limit: int | None = None
        self.remaining: int | None = None
        self.methods: set[str] = set()
        self._blocked_until = self._resets_at = self._last_sent_at = -math.inf
        self._last_number = self._newest_answered = self._probe = 0
        self._lowest_seen: dict[
            int, int
        ] = {}  # By request in flight: the lowest `remaining` reported since it was sent.

    @property
    def in_flight(self) -> AbstractSet[int]:
        """The numbers of the requests that were sent and have no response yet."""
        return self._lowest_seen.keys()

    def delay(self, now: float) -> float:
        """Return the seconds until a request may be sent, or until to ask again; infinite: until a response has come."""
        if self.remaining is None:
            return 0.0
        if self.remaining <= 0:
            return self._delay_while_exhausted(now)
        if self.limit is None or self.remaining >= self._slow_below * self.limit or now >= self._resets_at:
            return 0.0
        spacing = (self._resets_at - self._last_sent_at) / (self.remaining + 1)
        return max(0.0, self._last_sent_at + min(spacing, self._max_spacing) - now)

    def _delay_while_exhausted(self, now: float) -> float:
        if now < self._blocked_until:
            return self._blocked_until - now
        if self._blocked_until == -math.inf and self._lowest_seen and now < self._resets_at:
            return min(self._resets_at - now, _RECHECK_S)
        # After a reported reset one probe is sent at a time. Without one, the responses in flight decide.
        has_reset = max(self._blocked_until, self._resets_at) > -math.inf
        is_pending = self._probe in self._lowest_seen if has_reset else bool(self._lowest_seen)
        return math.inf if is_pending else 0.0

    def record_sent(self, now: float) -> int:
        """Count a request that is sent now, and return its number."""
        is_probe = self.remaining is not None and self.remaining <= 0
        number = self.count_in_flight(now)
        if is_probe:
            self._probe = number
        return number

    def count_in_flight(self, sent_at: float) -> int:
        """Count a request that was sent at `sent_at`, perhaps before this limit was known, and return its number."""
        self._last_number += 1
        self._last_sent_at = max(self._last_sent_at, sent_at)
        self._lowest_seen[self._last_number] = _UNREPORTED
        if self.remaining is not None:
            self.remaining -= 1
        return self._last_number

    def record_lost(self, number: int) -> None:
        """Take note that a request gets no response, or one that does not concern this limit."""
        self._lowest_seen.pop(number, None)

    def record_refusal(self, number: int, seconds: float | None, now: float) -> None:
        """Take note that a request was refused, and that the server asks for a wait of `seconds`."""
        self._lowest_seen.pop(number, None)
        self._newest_answered = max(self._newest_answered, number)
        self.remaining = 0
        self.block(seconds or 0.0, now)

    def block(self, seconds: float, now: float) -> None:
        """Hold back all requests for so many seconds."""
        self._blocked_until = max(self._blocked_until, now + seconds)

    def record_admission(self, number: int, limits: ResponseLimits, now: float) -> None:
        """Take note of a response that reports what remains of this limit."""
        remaining = limits.remaining or 0
        lowest, certain = self._complete(number, remaining)
        # The server may count requests in flight together in either order: the lower number includes both.
        for other, low in self._lowest_seen.items():
            self._lowest_seen[other] = min(low, remaining)
        if number > self._newest_answered:
            self._newest_answered, self.limit, self.remaining = number, limits.limit, certain
            self._resets_at = now + (limits.reset or 0.0)
            if lowest > 0:
                self._blocked_until = -math.inf
        elif now >= self._blocked_until:
            self.remaining = max(self.remaining or 0, certain)
        if not remaining:
            self.block(limits.available_after or 0.0, now)

    def record_lower_bound(self, number: int, remaining: int, now: float) -> None:
        """Take note of a response that reports another limit: at least as many units remain of this one."""
        _, certain = self._complete(number, remaining)
        if self.remaining is not None and now >= self._blocked_until:
            self.remaining = max(self.remaining, certain)

    def _complete(self, number: int, remaining: int) -> tuple[int, int]:
        """End a request in flight; return the lowest `remaining` reported during it, and how many may certainly follow."""
        lowest = min(remaining, self._lowest_seen.pop(number, _UNREPORTED))
        older = sum(other < number for other in self._lowest_seen)
        return lowest, lowest - (self._last_number - number) - older

    def no_signal(self, now: float) -> None:
        """Take note of a response without limits: an exhausted limit whose wait is over is taken for gone."""
        if self.remaining is not None and self.remaining <= 0 and now >= self._blocked_until:
            self.remaining = None
