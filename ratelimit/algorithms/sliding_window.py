"""The sliding window, twin of `sliding_window.lua`.

Time is cut into buckets. The state of a key is a queue of entries (stamp, count, overage) with their running total, and
the overage that is carried over from the previous window, with its stamp. A stamp is the last millisecond of the bucket
in which the entry was written, so that limits and with them bucket widths may change without the state changing its
meaning. An entry leaves when its bucket lies a whole window back, so the oldest, partly covered bucket counts in full.
What is used above the limit (the burst) is recorded in the entries as overage; when they leave, it is deducted from the
next window. Any k consecutive windows admit at most k·limit + burst; the proof stands in docs/how-it-works.md.
"""

from collections.abc import Sequence
from operator import itemgetter

from ratelimit.algorithms.sliding_window_state import Entry, SlidingWindowState
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.model.kinds import NEVER


class SlidingWindowView:
    """A window as it stands at one instant (ms) under one effective limit; see `StateView`."""

    __slots__ = (
        "_left",
        "_older",
        "available",
        "carried_overage",
        "carried_stamp",
        "last",
        "limit",
        "now",
        "state",
        "total",
    )

    def __init__(self, state: SlidingWindowState, limit: EffectiveRate, now: int) -> None:
        self.state, self.limit, self.now = state, limit, now
        self._left, self._older = 0, state.older
        self.total, self.last = state.total, state.last
        self.carried_overage, self.carried_stamp = state.carried_overage, state.carried_stamp
        horizon = now + limit.clock_tolerance_ms
        if (self.last is not None and self.last[0] >= horizon) or self.carried_stamp >= horizon:
            self._bring_back(horizon)
        if self.last is not None:
            self._roll(now - limit.window_ms)
        if self.carried_overage and now >= self._overage_lapses(self.carried_stamp):
            self.carried_overage = 0
        self.available = self._available()

    def _bring_back(self, horizon: int) -> None:
        """Count entries from beyond `horizon`, which a wrong clock wrote, in the current bucket."""
        entries = self._entries()
        kept = [entry for entry in entries if entry[0] < horizon]
        stamp = max(self._current_stamp(), kept[-1][0] if kept else 0)
        if len(kept) < len(entries):
            _, _, overage = entries[-1]
            kept.append((stamp, sum(count for _, count, _ in entries[len(kept) :]), overage))
        self._older, self.last = kept[:-1], kept[-1] if kept else None
        self.carried_stamp = min(self.carried_stamp, stamp)

    def _current_stamp(self) -> int:
        """Return the last millisecond of the bucket of now."""
        bucket_ms = self.limit.bucket_ms
        return self.now // bucket_ms * bucket_ms + bucket_ms - 1

    def _roll(self, horizon: int) -> None:
        """Leave out the entries from before `horizon`."""
        for entry in self._older:
            if entry[0] >= horizon:
                return
            self._left += 1
            self._leave_out(entry)
        if self.last is not None and self.last[0] < horizon:
            self._leave_out(self.last)
            self.last = None

    def _leave_out(self, entry: Entry) -> None:
        self.carried_stamp, count, self.carried_overage = entry
        self.total -= count

    def _overage_lapses(self, stamp: int) -> int:
        """Return the instant from which an overage that was carried at `stamp` no longer counts."""
        return stamp + 1 + 2 * self.limit.window_ms + self.limit.bucket_ms

    def _available(self) -> int:
        return min(self.limit.caller_capacity, self.limit.capacity - self._deducted()) - self.total

    def _deducted(self) -> int:
        """Return the carried overage as far as it is deducted from this window: at most the burst."""
        return min(self.carried_overage, self.limit.burst) if self.carried_overage else 0

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - only permits have holders
        """Count `cost` units now and say whether the state expires later than before."""
        state, limit, last = self.state, self.limit, self.last
        overage = max(0, self.total + cost - limit.limit + self._deducted())
        later = last is None or last[0] < self.now
        if last is not None and not later:
            self.last = (last[0], last[1] + cost, overage)
            later = self._older is not state.older
        else:
            if last is not None:
                self._older.append(last)
            self.last = (self._current_stamp(), cost, overage)
        self.total += cost
        self.available -= cost
        if (limit.burst or overage) and not state.may_carry:
            state.may_carry = later = True
        self._write()
        return later

    def copy(self) -> SlidingWindowState:
        """Return a state of the entries that have not left, which changes by itself."""
        older, may_carry = self._older[self._left :], self.state.may_carry
        return SlidingWindowState(self.total, self.carried_overage, self.carried_stamp, self.last, older, may_carry)

    def repair(self) -> bool:
        """Write the entries that a wrong clock left in the future as they count now: in the current bucket."""
        if is_due := self._older is not self.state.older:
            self._write()
        return is_due

    def _write(self) -> None:
        state = self.state
        if self._left:
            del self._older[: self._left]
            self._left = 0
        state.older = self._older
        state.total, state.last = self.total, self.last
        state.carried_overage, state.carried_stamp = self.carried_overage, self.carried_stamp

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Change what was charged at `at` (ms) by `delta` units, whether or not there is room.

        The entry of that instant is changed; it is made where the units were charged elsewhere. If that instant has left
        the window, a positive `delta` is counted now and a negative one is void. If the clock has stepped back since, a
        negative one is taken off the newest entry.
        """
        if delta > 0:
            delta = min(delta, NEVER - self.total)
        entries, later = self._entries(), False
        found = next((i for i, entry in enumerate(entries) if entry[0] >= at), None)
        if found is None or entries[found][0] - at >= self.limit.bucket_ms:
            if at < self.now - self.limit.window_ms:
                found = None  # The entry of `at` has left.
            elif delta > 0:
                found, later = self._insert(entries, at, found)
            elif found is None and entries:
                found = len(entries) - 1  # The clock stepped back since, and the entry was brought back with it.
        if found is None:
            return delta > 0 and self.charge(delta)
        self._change(entries, found, max(delta, -entries[found][1]))
        self._put_back(entries)
        _, _, overage = entries[-1]
        if overage and not self.state.may_carry:
            self.state.may_carry = later = True
        return later

    def _insert(self, entries: list[Entry], at: int, before: int | None) -> tuple[int | None, bool]:
        """Make the entry of a past instant; return its index, and whether the state expires later with it."""
        bucket_ms = self.limit.bucket_ms
        stamp = at // bucket_ms * bucket_ms + bucket_ms - 1
        if stamp >= self.now:
            return None, False
        index = len(entries) if before is None else before
        # With no admission since the previous entry, later spans held no more above the limit than it recorded.
        entries.insert(index, (stamp, 0, entries[index - 1][2] if index else self._deducted()))
        if not self.limit.burst or self.state.may_carry:
            return index, before is None
        self.state.may_carry = True
        return index, True

    def release(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take `amount` units off the total, from the newest entries first."""
        entries = self._entries()
        for i in range(len(entries) - 1, -1, -1):
            part = min(entries[i][1], amount)
            self._change(entries, i, -part)
            amount -= part
        self._put_back(entries)
        return False

    @property
    def releasable(self) -> int:
        """How many units may be released."""
        return self.total

    empty = False
    """A window without entries may still carry an overage, and expires by itself."""

    def usage(self) -> tuple[int, int, int]:
        """Return (units used, milliseconds until the window is empty, 0)."""
        return self.total, self._until_empty(), 0

    def _change(self, entries: list[Entry], at: int, delta: int) -> None:
        """Change the count of one entry, and with it the overage of that entry and of those after it."""
        self.total += delta
        for i in range(at, len(entries)):
            stamp, count, overage = entries[i]
            entries[i] = (stamp, count + delta if i == at else count, max(0, overage + delta) if overage else 0)
        if delta > 0:
            stamp, count, overage = entries[-1]
            entries[-1] = (stamp, count, max(overage, self.total - self.limit.limit + self._deducted()))

    def _put_back(self, entries: list[Entry]) -> None:
        if entries:
            self._older, self.last, self._left = entries[:-1], entries[-1], 0
            self.available = self._available()
            self._write()

    def status(self, cost: int) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) as they stand, `wait` being that of a further `cost`; durations in ms."""
        remaining = max(0, self.limit.advertised_limit - self.total)
        wait = 0 if self.available >= cost else self.wait(cost)
        if 0 < wait < NEVER:
            return remaining, wait, wait
        return remaining, self._until_empty() if remaining else self._until_one_remains(), wait

    def status_after_charge(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a charge; −`wait` is when one more is free, 0 if only burst is left."""
        remaining = self.limit.advertised_limit - self.total
        if remaining > 0 and self.last is not None:
            first, _, _ = self._older[self._left] if len(self._older) > self._left else self.last
            gone = 1 + self.limit.window_ms - self.now
            return remaining, self.last[0] + gone, -first - gone
        remaining, reset, wait = self.status(1)
        return remaining, reset, -wait

    def wait(self, cost: int) -> int:
        """Return the milliseconds after which `cost` is admitted if nothing else is charged, exactly; or `NEVER`."""
        caller_capacity, capacity, burst = self.limit.caller_capacity, self.limit.capacity, self.limit.burst
        if cost > caller_capacity:
            return NEVER
        total, carried, lapses = self.total, self.carried_overage, self._overage_lapses(self.carried_stamp)
        for stamp, count, overage in self._entries():
            leaves = stamp + 1 + self.limit.window_ms
            if carried and lapses <= leaves:
                carried = 0
                if total + cost <= caller_capacity:
                    return lapses - self.now
            total, carried, lapses = total - count, overage, self._overage_lapses(stamp)
            if total + cost <= min(caller_capacity, capacity - min(carried, burst)):
                return leaves - self.now
        return lapses - self.now

    def _until_empty(self) -> int:
        return self.last[0] + 1 + self.limit.window_ms - self.now if self.last else 0

    def _until_one_remains(self) -> int:
        """Return the milliseconds until `remaining` is above zero; available burst alone does not count."""
        if self.available < 1:
            wait = self.wait(1)
            return wait if wait < NEVER else 0
        total = self.total
        for stamp, count, _ in self._entries():
            total -= count
            if total < self.limit.advertised_limit:
                return stamp + 1 + self.limit.window_ms - self.now
        return 0

    def _entries(self) -> list[Entry]:
        """Return the entries that have not left."""
        older = self._older[self._left :]
        return older if self.last is None else [*older, self.last]


def fullest(windows: Sequence[SlidingWindowView], limit: EffectiveRate, now: int) -> SlidingWindowState | None:
    """Return a copy of what that window holds which fills `limit` most: a window without a state begins with it.

    `None` where none of them holds anything that counts under `limit`.
    """
    totals = [(SlidingWindowView(copy, limit, now).total, copy) for copy in (window.copy() for window in windows)]
    total, found = max(totals, key=itemgetter(0), default=(0, None))
    return found if total > 0 else None
