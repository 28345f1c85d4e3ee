"""The embedded store: counters of this process."""

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from ratelimit.algorithms import concurrency, pace, quota, sliding_window
from ratelimit.algorithms.sliding_window import Window
from ratelimit.charge import NEVER, Charge
from ratelimit.clock import Clock, system_clock
from ratelimit.stores.base import Answer, Notes, Op, Request, Store
from ratelimit.stores.expiry import Expiries

logger = logging.getLogger("ratelimit")


_KINDS: Final[dict[str, tuple[Callable[[], Any], Callable[..., Any]]]] = {
    "limit": (Window, sliding_window.View),
    "quota": (quota.Tally, quota.View),
    "concurrency": (concurrency.Slots, concurrency.View),
    "pace": (pace.Queue, pace.View),
}
"""The state of a key of each kind, and how it is seen at an instant."""

Triple = tuple[int, int, int]


class MemoryStore(Store):
    """Count in this process's memory, exactly as the Redis store does; workers do not see each other's counters.

    `clock` returns integer microseconds (default: the system's). At most `max_keys` keys are held:
    beyond that, of the policy that has most of them, the one that expires first or was used longest ago is forgotten,
    with one warning in the log.
    """

    def __init__(self, *, clock: Clock | None = None, max_keys: int = 1_000_000) -> None:
        self._clock = clock or system_clock
        self._max_keys = max_keys
        self._states: dict[str, Any] = {}
        self._notes: dict[str, Notes] = {}
        self._expiries = Expiries(max_keys)
        self._overflowed = False
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<MemoryStore keys={len(self)}>"

    def __len__(self) -> int:
        return len(self._states)

    async def submit(self, request: Request) -> Answer:
        """Do what is asked with the charges of one request; never waits and never fails."""
        return self.run(request)

    async def notes(self, book: str, seen: int | None) -> Notes | None:
        """Return what is noted in `book`, unless `seen` is still its version."""
        notes = self._notes.get(book, _NO_NOTES)
        return None if notes.version == seen else notes

    async def note(self, book: str, name: str, value: bytes | None) -> None:
        """Write or remove one note."""
        with self._lock:
            version, values = self._notes.get(book, _NO_NOTES)
            changed = {**values, name: value}
            self._notes[book] = Notes(version + 1, {each: told for each, told in changed.items() if told is not None})

    async def aclose(self) -> None:
        """Do nothing: there is nothing to give back."""

    def run(self, request: Request) -> Answer:
        """Do what is asked with the charges of one request, for callers that cannot wait; any thread may call it."""
        with self._lock:
            now = self._clock()
            ms = now // 1000
            if self._expiries.next <= ms:
                for key in self._expiries.expired(ms):
                    self._states.pop(key, None)
            done = self._charge if request.op <= Op.PEEK or request.op == Op.HOLD else self._amend
            return Answer(done(request, ms), now, ms)

    def _charge(self, request: Request, ms: int) -> list[Triple]:
        return (request.op == Op.CHARGE and self._charge_open(request, ms)) or self._charge_any(request, ms)

    def _charge_open(self, request: Request, ms: int) -> list[Triple] | None:
        """Charge windows that are all open: what most requests of callers who come often find."""
        windows = []
        for terms, key, cost in request.charges:
            window = self._states.get(key)
            if window.__class__ is not Window or not window.is_open(terms, ms, cost):
                return None
            windows.append(window)
        return [w.add(terms, ms, cost) for w, (terms, _, cost) in zip(windows, request.charges, strict=True)]

    def _charge_any(self, request: Request, ms: int) -> list[Triple]:
        admitted, views = request.op != Op.PEEK, []
        for charge in request.charges:
            view = self._view(charge, ms)
            views.append(view)
            if view.room < charge.cost and not charge.terms.shadow:
                admitted = False
        numbers = []
        for charge, view in zip(request.charges, views, strict=True):
            if admitted and view.room >= charge.cost:
                self._keep(charge, view, later=view.charge(charge.cost, request.holder))
                numbers.append(view.answer_charged())
            else:
                numbers.append(view.answer(charge.cost))
        return numbers

    def _amend(self, request: Request, ms: int) -> list[Triple]:
        op, views = request.op, [(charge, self._view(charge, ms)) for charge in request.charges]
        if op == Op.USAGE:
            return [view.usage() for _, view in views]
        if op == Op.RELEASE and any(view.taken < -charge.cost for charge, view in views):
            return [(*view.answer(1)[:2], NEVER) for _, view in views]
        for charge, view in views:
            if op == Op.ADJUST:
                later = view.adjust(charge.cost, request.at or ms, request.holder)
            elif op == Op.RELEASE:
                later = view.give_back(-charge.cost, request.holder)
            else:
                later = view.renew(request.holder)
            self._keep(charge, view, later=later)
        return [view.answer_charged() for _, view in views]

    def _view(self, charge: Charge, ms: int) -> Any:
        empty, view = _KINDS[charge.terms.kind]
        state = self._states.get(charge.key)
        return view(empty() if state is None else state, charge.terms, ms)

    def _keep(self, charge: Charge, view: Any, *, later: bool) -> None:
        """Keep the state that was changed, and note when it expires if that is `later` than before."""
        if charge.terms.kind != "limit" and view.empty:
            # Empty levels and slots mean the same as none.
            self._states.pop(charge.key, None)
            self._expiries.drop(charge.key)
            return
        if not later:
            return
        self._states[charge.key] = view.state
        terms = charge.terms
        gone = self._expiries.note(charge.key, view.state.expires(terms), terms.policy)
        if gone is not None:
            self._states.pop(gone, None)
            if not self._overflowed:
                self._overflowed = True
                logger.warning("memory store holds max_keys=%d keys; forgetting those longest unused", self._max_keys)


_NO_NOTES: Final = Notes(0, {})
