"""The embedded store: counters in this process's memory."""

import logging
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from threading import Lock
from typing import Any, Final

from ratelimit._utils.fork import call_after_fork
from ratelimit.algorithms import concurrency, pace, quota, sliding_window
from ratelimit.algorithms.sliding_window import fullest
from ratelimit.algorithms.sliding_window_state import SlidingWindowState, Snapshot
from ratelimit.clock import Clock, system_clock
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.model.kinds import NEVER, Kind
from ratelimit.model.service_limit import Reading
from ratelimit.stores.evicted_counters import EvictedCounters
from ratelimit.stores.eviction import KEY_BITS, Evicted, ExpiryIndex
from ratelimit.stores.memory_records import MemoryRecords
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest

logger = logging.getLogger("ratelimit")

_ALGORITHMS: Final[dict[Kind, tuple[Callable[[], Any], Callable[..., Any]]]] = {
    "limit": (SlidingWindowState, sliding_window.SlidingWindowView),
    "quota": (quota.QuotaState, quota.QuotaView),
    "concurrency": (concurrency.ConcurrencyState, concurrency.ConcurrencyView),
    "pace": (pace.PaceState, pace.PaceView),
}
"""For each kind, the empty state of a key and the view of a state."""

_KEY_MASK: Final = (1 << KEY_BITS) - 1

MAX_KEYS: Final = 1_000_000
"""Keys that a memory store holds at most, unless it is given another number."""

_STEP_BACK_MS: Final = 5_000
"""Milliseconds for which an expired key is kept: a clock that steps back by less finds it again, as in Redis."""


class MemoryStore(MemoryRecords):
    """Count in this process's memory, exactly as the Redis store does; workers do not see each other's counters.

    `clock` returns integer microseconds since the epoch (default: the system's). At most `max_keys` keys are held. Beyond
    that, the policy that has most of them loses the key that expires first, or of several the one used longest ago. Keys that
    are more than half used up go after all others. What an evicted key has used is still counted: a key that is made
    again begins with what the most used evicted key of its group had. `evictions` counts them; the log has one warning.
    """

    is_immediate = True

    def __init__(self, *, clock: Clock | None = None, max_keys: int = MAX_KEYS) -> None:
        super().__init__(clock or system_clock)
        self.max_keys = max_keys
        self._states: dict[int, Any] = {}
        self.evictions = 0
        """How many keys were evicted so far."""
        self._evicted, self._capacities = EvictedCounters(max_keys), dict[str, int]()
        self.expiry_index = ExpiryIndex(max_keys, self._is_spared)
        call_after_fork(self.renew_lock)

    def __repr__(self) -> str:
        return f"<MemoryStore keys={len(self)}>"

    def __len__(self) -> int:
        return len(self._states)

    def holds(self, key: str) -> bool:
        """Say whether there is a counter under this key."""
        return _hashed(key) in self._states

    async def submit(self, request: StoreRequest) -> StoreReply:
        """Do what is asked with the charges of one request; never waits and never fails."""
        return self.run(request)

    def submit_nowait(self, request: StoreRequest) -> StoreReply:
        """Do as `submit`."""
        return self.run(request)

    async def rehearse(self, request: StoreRequest) -> StoreReply:
        """Return what `submit` would reply to charges, by copies of their states."""
        with self._lock:
            now = self._clock()
            copy = MemoryStore(clock=lambda: now)
            charges = [each for charge in request.charges for each in (charge, *charge.others)]
            own = {key: self._states.get(key) for key in (_hashed(charge.key) for charge in charges)}
            copy._evicted = self._evicted
            copy._states = {key: deepcopy(state) for key, state in own.items() if state is not None}
        return copy.run(request)

    async def delete(self, keys: Iterable[str]) -> int:
        """Forget these counters, and return how many of them there were."""
        with self._lock:
            hashed = [_hashed(key) for key in keys]
            for key in hashed:
                self._evicted.empty(key)
            return sum(map(self._drop, hashed))

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""

    def renew_lock(self) -> None:
        """Make the lock again: in a forked child it stays locked for ever if another thread held it at the fork."""
        self._lock = Lock()

    def clear(self) -> None:
        """Forget all counters, as a restart does."""
        with self._lock:
            self._states.clear()
            self._evicted = EvictedCounters(self.max_keys)
            self.expiry_index = ExpiryIndex(self.max_keys, self._is_spared)

    def run(self, request: StoreRequest) -> StoreReply:
        """Do what is asked with the charges of one request; any thread may call it."""
        with self._lock:
            now = self._clock()
            ms = now // 1000
            if self.expiry_index.next <= ms - _STEP_BACK_MS:
                for key in self.expiry_index.expired(ms - _STEP_BACK_MS):
                    self._states.pop(key, None)
            charges = request.operation <= Operation.PEEK or request.operation == Operation.ACQUIRE
            return StoreReply((self._charge if charges else self._amend)(request, ms), now, ms)

    def _charge(self, request: StoreRequest, ms: int) -> list[Reading]:
        fast = request.operation == Operation.CHARGE and self._charge_usual(request, ms)
        return fast or self._charge_any(request, ms)

    def _charge_usual(self, request: StoreRequest, ms: int) -> list[Reading] | None:
        """Charge sliding windows of which something remains afterwards, as it is for most requests of known callers."""
        readings: list[Reading] = []
        charged: list[tuple[SlidingWindowState, Snapshot]] = []
        states, opens_bucket = self._states, False
        for limit, key, cost in request.charges:
            window = states.get(hash(key) & _KEY_MASK)
            if window.__class__ is not SlidingWindowState or limit.other_windows:
                break
            last = window.last
            before = last, window.total, window.carried_stamp
            # A key that has this state is charged under an `EffectiveRate`.
            reading = window.charge_usual(limit, ms, cost)  # type: ignore[arg-type]
            if reading is None:
                break
            if last is not None and last[0] < ms:
                opens_bucket = True
            charged.append((window, before))
            readings.append(reading)
        else:
            for charge, (window, (last, _, _)) in zip(request.charges, charged) if opens_bucket else ():  # noqa: B905
                if last is None or last[0] < ms:
                    until = window.expires(charge.limit)  # type: ignore[arg-type]
                    self.expiry_index.touch(_hashed(charge.key), until, charge.limit.policy, is_new=False)
            return readings
        for window, before in reversed(charged):
            window.take_back(before)
        return None

    def _charge_any(self, request: StoreRequest, ms: int) -> list[Reading]:
        admitted, views = request.operation != Operation.PEEK, []
        for charge in request.charges:
            view = self._view(charge, ms)
            views.append((charge, view, self._other_views(charge, ms) if charge.limit.other_windows else ()))
            if view.available < charge.cost and not charge.limit.shadow:
                admitted = False
        readings = []
        for charge, view, others in views:
            if admitted and view.available >= charge.cost:
                self._keep(charge, view, later=view.charge(charge.cost, request.holder))
                readings.append(view.status_after_charge())
                for other, its_view in others:
                    self._keep(other, its_view, later=its_view.charge(min(charge.cost, NEVER - its_view.total)))
            else:
                if request.operation != Operation.PEEK and view.repair():
                    self._keep(charge, view, later=True)
                readings.append(view.status(charge.cost))
        return readings

    def _amend(self, request: StoreRequest, ms: int) -> list[Reading]:
        operation = request.operation
        views = [(charge, self._view(charge, ms)) for charge in request.charges]
        if operation == Operation.USAGE:
            return [view.usage() for _, view in views]
        if operation == Operation.RELEASE and any(view.releasable < -charge.cost for charge, view in views):
            return [(remaining, reset, NEVER) for remaining, reset, _ in (view.status(1) for _, view in views)]
        others = [
            each for charge in request.charges if charge.limit.other_windows for each in self._other_views(charge, ms)
        ]
        for charge, view in [*views, *others]:
            if operation == Operation.ADJUST:
                later = view.adjust(charge.cost, request.charged_at or ms, request.holder)
            elif operation == Operation.RELEASE:
                later = view.release(min(-charge.cost, view.releasable), request.holder)
            else:
                later = view.renew(request.holder)
            self._keep(charge, view, later=later)
        return [view.status_after_charge() for _, view in views]

    def _other_views(self, charge: Charge, ms: int) -> list[tuple[Charge, Any]]:
        """Return the charges in the other windows of a charge, each with its view."""
        windows = [charge, *charge.others]
        return [(other, self._view(other, ms, windows)) for other in windows[1:]]

    def _view(self, charge: Charge, ms: int, windows: Sequence[Charge] = ()) -> Any:
        """Return the view of a charge; `windows` are all that count its units, where it is one of several."""
        limit, key = charge.limit, _hashed(charge.key)
        empty_state, view = _ALGORITHMS[limit.kind]
        state = self._state(key)
        if state is None and isinstance(limit, EffectiveRate) and ms < limit.new_until_ms:
            kept = [each for each in windows or charge.others if self.holds(each.key)]
            state = fullest([self._view(each, ms) for each in kept], limit, ms)
        if state is None:
            known = self._capacities.get(limit.policy, NEVER)
            self._capacities[limit.policy] = min(known, limit.caller_capacity)
            state = self._evicted.state_for(limit.policy, key, ms, empty_state) if self._evicted else empty_state()
        return view(state, limit, ms)

    def _state(self, key: int) -> Any:
        """Return the state of a key, or `None`."""
        state = self._states.get(key)
        return SlidingWindowState.expanded(state) if state.__class__ is int else state

    def _keep(self, charge: Charge, view: Any, *, later: bool) -> None:
        """Keep the state that was changed, and record when it expires if that is `later` than before."""
        key, state = _hashed(charge.key), view.state
        if view.empty:
            self._drop(key)
            return
        is_new = key not in self._states
        # Callers may be made up: most of them are charged once, and take little memory.
        self._states[key] = state.compact() if is_new and charge.limit.kind == "limit" else state
        if later or is_new:
            evicted = self.expiry_index.touch(key, state.expires(charge.limit), charge.limit.policy, is_new=is_new)
            if evicted is not None:
                self._evict(evicted)

    def _drop(self, key: int) -> bool:
        """Forget a key, and return whether there was one."""
        if self._states.pop(key, None) is None:
            return False
        self.expiry_index.discard(key)
        return True

    def _evict(self, evicted: Evicted) -> None:
        state = self._state(evicted.key)
        if state is not None:
            del self._states[evicted.key]
            self._evicted.add(evicted.policy, evicted.key, state, evicted.until)
        self.evictions += 1
        if self.evictions == 1:
            logger.warning(
                "memory store is full: max_keys=%d; it evicts the keys that are used least [RL411]", self.max_keys
            )

    def _is_spared(self, policy: str, key: int) -> bool:
        """Say whether more than half of a counter is used, by the smallest limit that its policy has had."""
        state = self._state(key)
        return state is not None and 2 * state.units > self._capacities.get(policy, NEVER)


def _hashed(key: str) -> int:
    return hash(key) & _KEY_MASK
