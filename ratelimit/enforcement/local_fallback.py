"""Local fallback while the store is unavailable: enforces this worker's share and records usage to report later."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.clock import Clock
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit, EffectiveRate
from ratelimit.model.service_limit import Reading
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest

logger = logging.getLogger("ratelimit")

MAX_KEYS: Final = 100_000
"""Keys whose usage is known, and keys whose units are kept to be reported."""

_WINDOW_PARTS: Final = 8
"""Parts of a window by which units are kept: all units of a part are reported at its last charge."""

_QUOTA_PART_MS: Final = 60_000
"""Milliseconds by which the units of a quota are kept."""


_Report = tuple[Sequence[Charge], Sequence[Reading], int]
"""The charges of a request, what the store replied, and when (epoch µs): kept as it came, and read in an outage."""

_NO_REPORT: Final[_Report] = (), (), 0


@dataclass(slots=True)
class _UnreportedUnits:
    """Units that were admitted locally, and the instant (ms, this process's clock) of the last charge among them."""

    limit: EffectiveLimit
    units: int
    charged_at: int


class LocalFallback:
    """Decides in this worker's memory, so that all workers together admit what the store would have admitted.

    Each worker enforces an equal share of every limit, and at least one unit. The usage that the store reported last
    for a key counts in that share, divided likewise, so that an outage does not start a second budget; for a key that
    the worker has not charged before, nothing counts as used. What is admitted is kept, by key and time, and reported
    when the store is available again. `worker_count` tells how many workers share the limits.
    """

    def __init__(self, clock: Clock, worker_count: Callable[[], int], *, max_keys: int = MAX_KEYS) -> None:
        self._clock, self._worker_count, self._max_keys = clock, worker_count, max_keys
        self._store_offset_ms = 0
        self.generation = 0
        """Counts how often the usage was reported: corrections of earlier charges go to the store."""
        self._memory = MemoryStore(clock=clock, max_keys=max_keys)
        self._observed: dict[str, _Report] = {}
        self._local_limits: BoundedCache[tuple[EffectiveLimit, int], EffectiveLimit] = BoundedCache(max_keys)
        self._global_limits: BoundedCache[EffectiveLimit, EffectiveLimit] = BoundedCache(max_keys)
        self._reset()

    def discard_unreported(self) -> None:
        """Keep nothing to report: another process reports it."""
        self._reset()

    def _reset(self) -> None:
        self.generation += 1
        self._seeded: dict[str, int] = {}
        self._unreported: dict[tuple[str, int], _UnreportedUnits] = {}
        self._overflowed = False

    @property
    def has_unreported(self) -> bool:
        """Whether there are units to report."""
        return bool(self._unreported)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of entries that each table holds."""
        return {
            "observed": len(self._observed),
            "unreported": len(self._unreported),
            "seeded": len(self._seeded),
            "memory": len(self._memory),
            "local_limits": len(self._local_limits),
            "global_limits": len(self._global_limits),
        }

    def observe(self, charges: Sequence[Charge], reply: StoreReply) -> None:
        """Remember the usage that the store reports, and how far its clock is from this process's."""
        self._store_offset_ms = reply.store_ms - reply.now // 1000
        observed, report = self._observed, (charges, reply.readings, reply.now)
        if len(observed) > self._max_keys:
            observed.clear()
        for _, key, _ in charges:
            observed[key] = report

    def decide(self, request: StoreRequest, *, keep: bool = True) -> tuple[StoreRequest, StoreReply]:
        """Decide or correct in this worker's share; return the request with its local limits, and the reply.

        With `keep`, a correction is reported to the store later. Admitted charges always are.
        """
        local = [charge._replace(limit=self._local_limit(charge)) for charge in request.charges]
        for charge, own in zip(request.charges, local, strict=True):
            self._seed_usage(charge, own)
        asked = request._replace(charges=local)
        reply = self._memory.run(asked)
        if request.operation == Operation.ADJUST:
            if keep:
                self.record_admitted(request.charges, request.charged_at or reply.store_ms)
        elif request.operation in (Operation.CHARGE, Operation.ACQUIRE) and not asked.is_refused(reply):
            self.record_admitted(request.made(reply), reply.store_ms)
        return asked, reply

    def record_admitted(self, charges: Sequence[Charge], at: int) -> None:
        """Keep units that were admitted at `at` (ms, this process's clock) to be reported."""
        for charge in charges:
            limit = self._global_limits.get(charge.limit, charge.limit)
            if limit.kind != "concurrency":
                part = charge.key, at // _part_ms(limit)
                kept = self._unreported.get(part)
                if kept is not None:
                    kept.units += charge.cost
                    kept.charged_at = max(kept.charged_at, at)
                elif len(self._unreported) < self._max_keys:
                    self._unreported[part] = _UnreportedUnits(limit, charge.cost, at)
                elif not self._overflowed:
                    self._overflowed = True
                    logger.error("store unavailable: usage of more than %d keys cannot be kept [RL409]", self._max_keys)

    def drain(self) -> list[StoreRequest]:
        """Return what the store has to count, oldest first, and keep it no longer."""
        now = self._clock() // 1000
        requests = []
        for (key, _), kept in sorted(self._unreported.items(), key=lambda item: item[1].charged_at):
            charge = Charge(kept.limit, key, kept.units)
            windows = charge.apart if kept.units > 0 else []
            due = [each for each in windows if not _has_left(each.limit, kept.charged_at, now)]
            if due:
                due = (
                    [charge] if len(due) == len(windows) else due
                )  # A period that is new begins with what others hold.
                requests.append(StoreRequest(due, Operation.ADJUST, 0, self.to_store_time(kept.charged_at)))
        self._reset()
        return requests

    def to_store_time(self, at: int) -> int:
        """Return the store's time at the instant `at` of this process's clock (ms)."""
        return max(1, at + self._store_offset_ms)

    def to_global(self, charge: Charge) -> Charge:
        """Return a charge under a local limit as it is sent to the store."""
        return charge._replace(limit=self._global_limits.get(charge.limit, charge.limit))

    def _local_limit(self, charge: Charge) -> EffectiveLimit:
        """Return this worker's share of a limit: at least one unit, and enough for this charge if the limit is."""
        limit, workers = self._global_limits.get(charge.limit, charge.limit), self._worker_count()
        if workers <= 1 or limit.limit == 0:
            return limit
        number = max(1, limit.limit // workers, min(abs(charge.cost), limit.limit))
        local = self._local_limits.get((limit, number))
        if local is None:
            share = None if limit.share is None else min(limit.share, max(1, limit.share // workers))
            changes = {"limit": number, "share": share, "fleet_limit": limit.advertised_limit}
            if isinstance(limit, EffectiveRate):
                changes["burst"] = max(0, limit.capacity // workers - number)
            local = dataclasses.replace(limit, **changes)  # type: ignore[arg-type]
            self._local_limits[limit, number] = local
            self._global_limits[local] = limit
        return local

    def _observed_usage(self, key: str) -> tuple[int, int]:
        """Return the units that the store reported last for a key, and when that was (epoch µs); zeros for none."""
        charges, readings, now = self._observed.get(key, _NO_REPORT)
        for charge, (remaining, _, _) in zip(charges, readings, strict=True):
            if charge.key == key:
                return charge.limit.advertised_limit - remaining, now
        return 0, 0

    def _seed_usage(self, charge: Charge, own: Charge) -> None:
        """Count this worker's share of the usage that the store reported for a key, once, at the time of that report."""
        used, now = self._observed_usage(charge.key)
        # Nothing is remembered of a key without a report, because callers may make up keys.
        if now == self._seeded.get(charge.key, 0):
            return
        self._seeded[charge.key] = now
        limit = charge.limit
        if used > 0 and not _has_left(limit, now // 1000, self._clock() // 1000) and limit.kind != "concurrency":
            # Charges of an earlier outage count until their window or period is over.
            counted, _, _ = self._memory.run(StoreRequest([own], Operation.USAGE)).readings[0]
            missing = math.ceil(used / self._worker_count()) - counted
            if missing > 0:
                seed = own.apart[0]._replace(cost=missing)  # Of the other windows the report says nothing.
                self._memory.run(StoreRequest([seed], Operation.ADJUST, 0, now // 1000))


def _part_ms(limit: EffectiveLimit) -> int:
    """Return by how many milliseconds units are kept: by parts of the shortest window that counts them."""
    if not isinstance(limit, EffectiveRate):
        return _QUOTA_PART_MS
    shortest = min([limit.window_ms, *(other.limit.window_ms for other in limit.other_windows)])
    return max(1, shortest // _WINDOW_PARTS)


def _has_left(limit: EffectiveLimit, at: int, now: int) -> bool:
    """Say whether what was charged at an instant has left the window; instants in ms."""
    return isinstance(limit, EffectiveRate) and at < now - limit.window_ms
