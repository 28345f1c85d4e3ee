"""The state of a sliding window, and the charge of most requests; `sliding_window.py` explains the terms."""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.model.effective_limit import WINDOW_BUCKETS, EffectiveRate
from ratelimit.model.service_limit import Reading

Entry = tuple[int, int, int]
"""Stamp (milliseconds since the epoch), count and overage (units)."""

Snapshot = tuple[Entry | None, int, int]
"""The last entry, the total and the stamp of the carried overage."""

_STAMP_BITS: Final = 44
"""Bits of a stamp in a compact state: enough until the year 2527."""


@dataclass(slots=True)
class SlidingWindowState:
    """The state of one key.

    `older` holds the entries in the order in which they leave; `last` stands apart because most writes touch only it.
    `may_carry` says that the expiry leaves time for a carried overage. `left` are the entries that the last charge has left out:
    where it is taken back, they come back.
    """

    total: int = 0
    carried_overage: int = 0
    carried_stamp: int = 0
    last: Entry | None = None
    older: list[Entry] = field(default_factory=list)
    may_carry: bool = False
    left: list[Entry] = field(default_factory=list, compare=False, repr=False)

    def charge_usual(self, limit: EffectiveRate, now: int, cost: int) -> Reading | None:
        """Count `cost` units and return the reading; change nothing where too little remains, or an overage is in play.

        In another bucket than the last charge, the state expires later than before.
        """
        last, older, total = self.last, self.older, self.total + cost
        if last is None or self.carried_overage or (limit.burst and not self.may_carry):
            return None
        stamp, count, _ = last
        if now > stamp:
            return self._charge_next(limit, now, cost, last)
        if (
            not now <= stamp < now + limit.clock_tolerance_ms
            or total >= limit.advertised_limit
            or (older and older[0][0] < now - limit.window_ms)
        ):
            return None
        self.last, self.total = (stamp, count + cost, 0), total
        gone = 1 + limit.window_ms - now
        return limit.advertised_limit - total, stamp + gone, -(older[0][0] if older else stamp) - gone

    def _charge_next(self, limit: EffectiveRate, now: int, cost: int, last: Entry) -> Reading | None:
        """Do so in a new bucket; the entries that have left the window leave."""
        horizon, total, stamp, left = now - limit.window_ms, self.total + cost, self.carried_stamp, 0
        if last[0] < horizon or last[2]:
            return None
        for entry in self.older:
            if entry[0] >= horizon:
                break
            stamp, count, overage = entry
            if overage:
                return None
            total -= count
            left += 1
        if total >= limit.advertised_limit:
            return None
        bucket_ms, older = limit.bucket_ms, self.older
        self.left = older[:left]
        if left:
            del older[:left]
        older.append(last)
        self.carried_stamp, self.total = stamp, total
        current = now // bucket_ms * bucket_ms + bucket_ms - 1
        self.last = current, cost, 0
        gone = 1 + limit.window_ms - now
        return limit.advertised_limit - total, current + gone, -older[0][0] - gone

    def take_back(self, before: Snapshot) -> None:
        """Undo the last `charge_usual`, before which the state was so."""
        if self.last is not None and before[0] is not None and self.last[0] != before[0][0]:
            self.older.pop()
            self.older[:0] = self.left
        self.last, self.total, self.carried_stamp = before

    def compact(self) -> "SlidingWindowState | int":
        """Return a state of one entry as an integer, which takes a tenth of the memory; any other one as it is."""
        last = self.last
        if (
            last is None
            or last[2]
            or self.carried_stamp
            or self.older
            or last[1] != self.total
            or last[0] >> _STAMP_BITS
        ):
            return self
        return (self.total << 1 | self.may_carry) << _STAMP_BITS | last[0]

    @classmethod
    def expanded(cls, compact: int) -> "SlidingWindowState":
        """Return the state that `compact` has made smaller."""
        total = compact >> _STAMP_BITS + 1
        last = compact & (1 << _STAMP_BITS) - 1, total, 0
        return cls(total=total, last=last, may_carry=bool(compact >> _STAMP_BITS & 1))

    @property
    def units(self) -> int:
        """The units in the window."""
        return self.total

    def merged(self, other: "SlidingWindowState") -> "SlidingWindowState":
        """Return a state under which no more is admitted than under either: the larger use, at the later instant."""
        entries = [entry for state in (self, other) for entry in (*state.older, state.last) if entry is not None]
        total = max(self.total, other.total)
        overage = max([entry[2] for entry in entries], default=0)
        stamp = max([entry[0] for entry in entries], default=0)
        return SlidingWindowState(
            total=total,
            carried_overage=max(self.carried_overage, other.carried_overage),
            carried_stamp=max(self.carried_stamp, other.carried_stamp),
            last=(stamp, total, overage) if entries else None,
            may_carry=self.may_carry or other.may_carry,
        )

    def expires(self, limit: EffectiveRate) -> int:
        """Return an instant (ms) from which this state means the same as none, also if the limit changes meanwhile."""
        stamp = self.last[0] if self.last else self.carried_stamp
        carrying = limit.window_ms + limit.bucket_ms if self.may_carry else 0
        return stamp + 1 + limit.window_ms + carrying + 3 * (limit.window_ms // WINDOW_BUCKETS + 2)
