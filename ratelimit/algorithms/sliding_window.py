"""The sliding window, twin of `sliding_window.lua`.

Time is cut into slots. The state of a key is a queue of entries (stamp, count, x) with their running total, and the
excess X carried over from the window before, with its stamp. A stamp is the last millisecond of the slot in which the
entry was written, so that limits and with them slots may change without the state meaning something else. An entry
leaves when its slot lies a whole window back; the oldest, partly covered slot thus counts in full. What was used above
the limit (the burst) is carried by the entries as x, and taken off the next window when they leave.

Any k consecutive windows admit at most k·limit + allowance; the proof stands in docs/how-it-works.md.
"""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.charge import MAX_SLOTS, NEVER, Terms

Entry = tuple[int, int, int]
"""Stamp (milliseconds since the epoch), count and x (units)."""


_NOTHING: Final[Entry] = (0, 0, 0)


@dataclass(slots=True)
class Window:
    """The state of one key; `older` in the order in which they leave, `last` apart because most writes touch only it."""

    total: int = 0
    excess: int = 0
    excess_stamp: int = 0
    last: Entry | None = None
    older: list[Entry] = field(default_factory=list)
    carries: bool = False

    def is_open(self, terms: Terms, now: int, cost: int) -> bool:
        """Say whether `cost` is admitted by a glance: the last slot goes on, none has left, and something remains."""
        last, older = self.last, self.older
        return (
            last is not None
            and last[0] >= now
            and self.total + cost < terms.usable
            and not self.excess
            and (not older or older[0][0] >= now - terms.span)
            and (self.carries or not terms.allowance)
        )

    def add(self, terms: Terms, now: int, cost: int) -> tuple[int, int, int]:
        """Count `cost` units in a window that `is_open`, and return (remaining, reset, wait) as after a charge."""
        stamp, count, _ = self.last or _NOTHING
        self.last = (stamp, count + cost, 0)
        self.total += cost
        return terms.usable - self.total, stamp + 1 + terms.span - now, 0

    def expires(self, terms: Terms) -> int:
        """Return an instant (ms) from which this state means the same as none, also if the limit changes meanwhile."""
        stamp = self.last[0] if self.last else self.excess_stamp
        carried = terms.span + terms.slot if self.carries else 0
        return stamp + 1 + terms.span + carried + 3 * (terms.span // MAX_SLOTS + 2)


class View:
    """A window seen at one instant (ms) under one policy's numbers, rolled forward without being changed.

    `room` is how many units would be admitted now (below zero where the limit was lowered). `charge` is the only
    change of state.
    """

    __slots__ = ("excess", "excess_stamp", "gone", "last", "now", "room", "state", "terms", "total")

    def __init__(self, window: Window, terms: Terms, now: int) -> None:
        self.state, self.terms, self.now = window, terms, now
        self.gone = 0
        self.total, self.last = window.total, window.last
        self.excess, self.excess_stamp = window.excess, window.excess_stamp
        if self.last is not None:
            self._roll(now - terms.span)
        if self.excess and now >= self._lapse(self.excess_stamp):
            self.excess = 0
        self.room = self._room()

    def _roll(self, horizon: int) -> None:
        """Let go of the entries that have left."""
        for entry in self.state.older:
            if entry[0] >= horizon:
                return
            self.gone += 1
            self._release(entry)
        if self.last is not None and self.last[0] < horizon:
            self._release(self.last)
            self.last = None

    def _release(self, entry: Entry) -> None:
        self.excess_stamp, count, self.excess = entry
        self.total -= count

    def _lapse(self, stamp: int) -> int:
        return stamp + 1 + 2 * self.terms.span + self.terms.slot

    def _room(self) -> int:
        return min(self.terms.cap, self.terms.ceiling - self._carried()) - self.total

    def _carried(self) -> int:
        return min(self.excess, self.terms.allowance) if self.excess else 0

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - only slots have holders
        """Count `cost` units now and say whether the window expires later; whether there is room is for the caller."""
        window, terms, last = self.state, self.terms, self.last
        x = max(0, self.total + cost - terms.limit + self._carried())
        if self.gone:
            del window.older[: self.gone]
            self.gone = 0
        later = last is None or last[0] < self.now
        if last is not None and not later:
            self.last = (last[0], last[1] + cost, x)
        else:
            if last is not None:
                window.older.append(last)
            self.last = (self.now // terms.slot * terms.slot + terms.slot - 1, cost, x)
        self.total += cost
        self.room -= cost
        if terms.allowance and not window.carries:
            window.carries = later = True
        self._write()
        return later

    def _write(self) -> None:
        window = self.state
        window.total, window.last = self.total, self.last
        window.excess, window.excess_stamp = self.excess, self.excess_stamp

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Change what was charged at `at` (ms) by `delta` units, wherever that leaves the total.

        It is done in the entry of that moment, which is made for units that were charged elsewhere then. Where it has
        left, units are counted now, and credits are void.
        """
        if delta > 0:
            delta = min(delta, NEVER - self.total)
        entries, later = self._alive(), False
        found = next((i for i, entry in enumerate(entries) if entry[0] >= at), None)
        if found is None or entries[found][0] - at >= self.terms.slot:
            if at < self.now - self.terms.span:
                found = None  # That of `at` has left.
            elif delta > 0:
                found, later = self._insert(entries, at, found)
        if found is None:
            return delta > 0 and self.charge(delta)
        self._change(entries, found, max(delta, -entries[found][1]))
        self._put_back(entries)
        return later

    def _insert(self, entries: list[Entry], at: int, before: int | None) -> tuple[int | None, bool]:
        """Make the entry of a moment that is over; return its place, and whether the window expires later with it."""
        slot = self.terms.slot
        stamp = at // slot * slot + slot - 1
        if stamp >= self.now:
            return None, False
        place = len(entries) if before is None else before
        # With no admission since the entry before, later spans held no more above the limit than it carries.
        entries.insert(place, (stamp, 0, entries[place - 1][2] if place else self._carried()))
        if not self.terms.allowance or self.state.carries:
            return place, before is None
        self.state.carries = True
        return place, True

    def give_back(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take `amount` units off the total, the newest first; the caller has made sure that so many were taken."""
        entries = self._alive()
        for i in range(len(entries) - 1, -1, -1):
            taken = min(entries[i][1], amount)
            self._change(entries, i, -taken)
            amount -= taken
        self._put_back(entries)
        return False

    @property
    def taken(self) -> int:
        """How many units may be given back."""
        return self.total

    def usage(self) -> tuple[int, int, int]:
        """Return (used, milliseconds until it is empty, 0)."""
        return self.total, self._empty_again(), 0

    def _change(self, entries: list[Entry], at: int, delta: int) -> None:
        """Change the count of one entry; what it and those after it carry above the limit changes with it."""
        self.total += delta
        for i in range(at, len(entries)):
            stamp, count, x = entries[i]
            entries[i] = (stamp, count + delta if i == at else count, max(0, x + delta) if x else 0)
        if delta > 0:
            stamp, count, x = entries[-1]
            entries[-1] = (stamp, count, max(x, self.total - self.terms.limit + self._carried()))

    def _put_back(self, entries: list[Entry]) -> None:
        if entries:
            self.state.older, self.last, self.gone = entries[:-1], entries[-1], 0
            self.room = self._room()
            self._write()

    def answer(self, cost: int) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) as they stand, `wait` being that of a further `cost`; durations in ms."""
        remaining = max(0, self.terms.usable - self.total)
        wait = 0 if self.room >= cost else self.wait(cost)
        if 0 < wait < NEVER:
            return remaining, wait, wait
        return remaining, self._empty_again() if remaining else self._free_again(), wait

    def answer_charged(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a charge: `wait` below zero where nothing at all is left."""
        remaining = self.terms.usable - self.total
        if remaining > 0 and self.last is not None:
            return remaining, self.last[0] + 1 + self.terms.span - self.now, 0
        remaining, reset, wait = self.answer(1)
        return remaining, reset, -wait

    def wait(self, cost: int) -> int:
        """Return the milliseconds after which `cost` is admitted if nobody else spends, exactly; `NEVER` if never."""
        cap, ceiling, allowance = self.terms.cap, self.terms.ceiling, self.terms.allowance
        if cost > cap:
            return NEVER
        total, excess, lapse = self.total, self.excess, self._lapse(self.excess_stamp)
        for stamp, count, x in self._alive():
            leave = stamp + 1 + self.terms.span
            if excess and lapse <= leave:
                excess = 0
                if total + cost <= cap:
                    return lapse - self.now
            total, excess, lapse = total - count, x, self._lapse(stamp)
            if total + cost <= min(cap, ceiling - min(excess, allowance)):
                return leave - self.now
        return lapse - self.now

    def _empty_again(self) -> int:
        return self.last[0] + 1 + self.terms.span - self.now if self.last else 0

    def _free_again(self) -> int:
        """Return the milliseconds until `remaining` is above zero: burst alone does not count."""
        if self.room < 1:
            wait = self.wait(1)
            return wait if wait < NEVER else 0
        total = self.total
        for stamp, count, _ in self._alive():
            total -= count
            if total < self.terms.usable:
                return stamp + 1 + self.terms.span - self.now
        return 0

    def _alive(self) -> list[Entry]:
        older = self.state.older[self.gone :]
        return older if self.last is None else [*older, self.last]
