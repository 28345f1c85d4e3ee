"""The engine: decides the requests of a log as the server would have decided them, by the log's clock."""

import heapq
from collections.abc import Sequence
from itertools import count
from typing import Final, NamedTuple

from ratelimit.config.settings import RateLimitSettings
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveConcurrency
from ratelimit.model.identity import Identity
from ratelimit.model.kinds import NEVER
from ratelimit.rehearsal.log_records import LogRecord
from ratelimit.rehearsal.quiet_counters import QuietCounters
from ratelimit.resolver.endpoint_policies import EndpointPolicies
from ratelimit.resolver.resolver import PolicyResolver
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest

MAX_KEYS: Final = 1_000_000
"""Counters that are held; beyond that, those unused for longest are dropped, and the result says so."""

_RENEWALS_PER_LEASE: Final = 3


class Outcome(NamedTuple):
    """What the limits decide: the charges, and for each the milliseconds to wait (> 0: it refuses, or would in shadow)."""

    charges: Sequence[Charge]
    waits: Sequence[int]
    is_refused: bool
    has_waits: bool = False


_MAX_CACHED: Final = 65_536
"""Callers at endpoints whose charges are kept: more than a worker keeps, since a log has all of them."""

_NO_LIMIT: Final = Outcome((), (), False)
_new: Final = tuple.__new__


class RehearsalEngine:
    """Counts with the algorithms of the memory store, whose clock is the log's.

    A request that is admitted holds its permits until it has ended, and what its status refunds is given back then: its response
    began and ended, as far as a log knows, at one instant.
    """

    def __init__(self, settings: RateLimitSettings) -> None:
        self.resolver = PolicyResolver(settings)
        self.resolver.charge_cache.max_size = _MAX_CACHED
        self._now = 0
        self.store = MemoryStore(clock=lambda: self._now, max_keys=MAX_KEYS)
        self.quiet = QuietCounters(self._count, self.store.holds)
        self._later: list[tuple[int, int, StoreRequest, int, int]] = []
        self._numbers = count(1)

    def decide(self, record: LogRecord, identity: Identity, policies: EndpointPolicies) -> Outcome:
        """Decide one request; requests come in the order in which they began."""
        at = record.at
        while self._later and self._later[0][0] <= at:
            self._now, _, request, pause, ends = heapq.heappop(self._later)
            self.store.run(request)
            if pause and self._now + pause < ends:
                self._at(self._now + pause, request, pause, ends)
        self._now = at
        if policies.is_exempt:
            return _NO_LIMIT
        charges = policies.charges(identity, now=at)
        if not charges:
            return _NO_LIMIT
        if not policies.needs_settlement:
            return self._charge(charges, at // 1000)
        for charge in charges:  # What may be given back is counted by the store.
            self.quiet.hand_over(charge.key)
        self._now = at
        request = StoreRequest(charges, Operation.ACQUIRE, next(self._numbers))
        reply = self.store.run(request)
        outcome = _outcome(charges, reply)
        if not outcome.is_refused:
            self._settle(record, request, reply)
        return outcome

    def _charge(self, charges: Sequence[Charge], ms: int) -> Outcome:
        """Decide a request of which nothing is given back: the store is asked about keys that may be full."""
        now = self._now
        quiet, others = self.quiet.split(charges, ms)
        self._now = now
        if others:
            outcome = _outcome(others, self.store.run(_new(StoreRequest, (others, Operation.CHARGE, 0, 0, None))))
            if outcome.has_waits:
                waits = dict(zip([charge.key for charge in others], outcome.waits, strict=True))
                outcome = Outcome(charges, [waits.get(charge.key, 0) for charge in charges], outcome.is_refused, True)
                if outcome.is_refused:
                    return outcome
        else:
            outcome = _NO_LIMIT
        for times in quiet:
            times.append(ms)
        if len(self.quiet) > MAX_KEYS:
            self.quiet.sweep(ms, MAX_KEYS)
        return outcome if outcome.has_waits else _new(Outcome, (charges, (), False, False))

    def _count(self, charge: Charge, ms: int) -> None:
        self._now = ms * 1000
        self.store.run(_new(StoreRequest, ([charge], Operation.CHARGE, 0, 0, None)))

    def _settle(self, record: LogRecord, request: StoreRequest, reply: StoreReply) -> None:
        made = request.made(reply)
        permits = [charge for charge in made if charge.limit.kind == "concurrency"]
        refunds = [
            charge._replace(cost=-charge.cost)
            for charge in made
            if charge.limit.kind != "concurrency" and record.status in charge.limit.refund_on
        ]
        if refunds:
            self._at(record.ends, StoreRequest(refunds, Operation.ADJUST, request.holder, reply.store_ms))
        if permits:
            released = [charge._replace(cost=-1) for charge in permits]
            self._renew(record, permits, request.holder)
            self._at(record.ends, StoreRequest(released, Operation.ADJUST, request.holder, reply.store_ms))

    def _renew(self, record: LogRecord, permits: Sequence[Charge], holder: int) -> None:
        """Renew the leases of a long request, as the server does while it runs."""
        leases = [each.limit.lease_ms for each in permits if isinstance(each.limit, EffectiveConcurrency)]
        pause = min(leases) * 1000 // _RENEWALS_PER_LEASE
        if record.at + pause < record.ends:
            self._at(record.at + pause, StoreRequest(permits, Operation.RENEW, holder), pause, record.ends)

    def _at(self, when: int, request: StoreRequest, pause: int = 0, ends: int = 0) -> None:
        """Have the store do something later, and where there is a `pause` (µs), again and again before the end."""
        heapq.heappush(self._later, (when, next(self._numbers), request, pause, ends))


def _outcome(charges: Sequence[Charge], reply: StoreReply) -> Outcome:
    for _, _, wait_ms in reply.readings:  # Most requests are admitted by all.
        if wait_ms > 0:
            break
    else:
        return _new(Outcome, (charges, (), False, False))
    waits = [wait_ms for _, _, wait_ms in reply.readings]
    refused = any(wait > 0 and not charge.limit.shadow for charge, wait in zip(charges, waits, strict=True))
    return Outcome(charges, waits, refused, True)


def seconds_of(wait_ms: int) -> float | None:
    """Return a wait in seconds; `None` where waiting does not help."""
    return None if wait_ms >= NEVER else wait_ms / 1000
