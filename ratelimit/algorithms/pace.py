"""A pace, twin of `pace.lua`: evenly spaced reservations, given in the order in which they are asked for.

The state of a key is when the next reservation starts, exactly: microseconds, and a remainder in parts of the limit, so
that `limit` reservations in a row take one period to the microsecond. A reservation that is cancelled becomes free again
if it is the last one, together with all cancelled reservations just before it. An earlier one is lost: reusing it
would let a new caller overtake those who hold a later one.
"""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.model.effective_limit import EffectivePace
from ratelimit.model.kinds import NEVER

_EXPIRY_MARGIN_MS: Final = 1000
"""Milliseconds that a state is kept beyond its end, for a clock that steps back a little."""

_MAX_GAPS: Final = 64
"""Gaps of cancelled reservations that are remembered; beyond that the oldest is lost."""

Gap = tuple[int, int]
"""Neighbouring reservations that were cancelled: from when to when (µs)."""


@dataclass(slots=True)
class PaceState:
    """The state of one key: `next` in microseconds since the epoch, `remainder` in parts of the limit."""

    next: int = 0
    remainder: int = 0
    gaps: list[Gap] = field(default_factory=list)

    @property
    def units(self) -> int:
        """A pace has no units: the next reservation says all."""
        return 0

    def merged(self, other: "PaceState") -> "PaceState":
        """Return a state under which no reservation starts before that of either."""
        last = max(self, other, key=lambda state: (state.next, state.remainder))
        return PaceState(last.next, last.remainder)

    def expires(self, limit: EffectivePace) -> int:  # noqa: ARG002 - the next reservation says it
        """Return an instant (ms) from which this state means the same as none."""
        return self.next // 1000 + 1 + _EXPIRY_MARGIN_MS


class PaceView:
    """A pace as it stands at one instant (ms) under one effective limit; see `StateView`.

    Its readings are (start of the reservation in µs, wait for it in µs, 0) or, where that wait exceeds
    `EffectivePace.max_wait_ms`, (start of the next reservation, wait for it, milliseconds by which it is too long).
    """

    __slots__ = ("available", "changed", "interval", "limit", "now", "start", "state")

    def __init__(self, state: PaceState, limit: EffectivePace, now: int) -> None:
        self.state, self.limit, self.now = state, limit, now * 1000
        self.interval = limit.window * 1_000_000 // limit.limit
        self.changed = False
        self._find_next()

    def _find_next(self) -> None:
        self.start = max(self.state.next, self.now)
        self.available = int(self.start - self.now <= self.limit.max_wait_ms * 1000)

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - one reservation at a time
        """Give the next reservation away; the state expires later then."""
        state, limit = self.state, self.limit.limit
        if self.now > state.next:
            state.remainder, state.gaps = 0, []
        carry, state.remainder = divmod(state.remainder + self.limit.window * 1_000_000 % limit, limit)
        state.next = self.start + self.interval + carry
        return True

    def repair(self) -> bool:
        """Do nothing: a pace that is far ahead may be one with many reservations."""
        return False

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Cancel the reservation that starts at `holder` (µs), where `delta` is negative."""
        state = self.state
        if delta >= 0 or holder >= state.next:
            return False
        if _adjoin(holder + self.interval, state.next):
            self._cancel_last(holder)
        else:
            self._remember_gap((holder, holder + self.interval))
        self.changed = True
        self._find_next()
        return True

    def _cancel_last(self, start: int) -> None:
        state = self.state
        state.next, state.remainder = start, 0
        while state.gaps and _adjoin(state.gaps[-1][1], state.next):
            state.next, _ = state.gaps.pop()

    def _remember_gap(self, gap: Gap) -> None:
        gaps = self.state.gaps
        at = sum(start < gap[0] for start, _ in gaps)
        if at < len(gaps) and _adjoin(gap[1], gaps[at][0]):
            gap = gap[0], gaps.pop(at)[1]
        if at > 0 and _adjoin(gaps[at - 1][1], gap[0]):
            at -= 1
            gap = gaps.pop(at)[0], gap[1]
        gaps.insert(at, gap)
        if len(gaps) > _MAX_GAPS:
            del gaps[0]

    def release(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Do nothing: reservations are cancelled one by one, by `adjust`."""
        return False

    @property
    def empty(self) -> bool:
        """Whether the state was changed, and means the same as none."""
        return self.changed and self.state.next <= self.now

    @property
    def releasable(self) -> int:
        """Always 0: reservations are cancelled one by one, by `adjust`."""
        return 0

    def usage(self) -> tuple[int, int, int]:
        """Return (0, milliseconds until the next reservation starts, 0)."""
        return 0, -(-(self.start - self.now) // 1000), 0

    def status(self, cost: int) -> tuple[int, int, int]:  # noqa: ARG002
        """Return the next reservation, the wait for it, and by how much that is too long."""
        wait = self.start - self.now
        return self.start, wait, min(NEVER, max(0, -((self.limit.max_wait_ms * 1000 - wait) // 1000)))

    def status_after_charge(self) -> tuple[int, int, int]:
        """Return the reservation that was given, or the next one after another change."""
        start, wait, over_ms = self.status(1)
        return start, wait, -over_ms


def _adjoin(end: int, start: int) -> bool:
    """Say whether one reservation starts where the other ends; either may have been rounded."""
    return -1 <= end - start <= 1
