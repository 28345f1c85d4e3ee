"""Prefetch: a worker takes units of hot keys ahead, and asks the store once for many requests."""

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from ratelimit._utils.bounded_cache import BoundedCache
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.settlement import CorrectionTarget, Settlement
from ratelimit.errors import StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveRate
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.stores.messages import Outcome, StoreReply, StoreRequest

Submit = Callable[[Sequence[Charge]], Awaitable[StoreReply]]
"""Asks the store to make these charges."""

_REMAINING_PART: Final = 16
"""At most 1/16 of what remains is taken ahead, so that near the limit every unit is asked for by itself."""

MAX_PREFETCHED_KEYS: Final = 10_000
"""Keys of which units are held; beyond that all are dropped, and their units are lost for the window."""


@dataclass(slots=True)
class PrefetchedUnits:
    """Prefetched units for one key, with the limit they were granted under and the store's last reply.

    `granted_at` and `until` are epoch microseconds of this process's clock, `store_ms` is the store's own instant. Units
    are counted in the bucket in which they were taken, and may be spent only while that bucket is open. `is_locked`
    says that a request is taking more of them.
    """

    limit: EffectiveRate
    units: int
    granted_at: int
    until: int
    store_ms: int
    service_limit: ServiceLimit
    is_locked: bool = False


@dataclass(slots=True)
class PrefetchAttempt:
    """One request: which of its charges are spent from prefetched units, and what the store is asked for.

    When it is complete, `limits` are the service limits of all charges, `store_ms` is the store's own instant, and
    `is_contested` that of its reply.
    """

    charges: Sequence[Charge]
    now: int
    spent: dict[int, PrefetchedUnits] = field(default_factory=dict)
    asked: list[Charge] = field(default_factory=list)
    locked: list[PrefetchedUnits] = field(default_factory=list)
    limits: list[ServiceLimit] = field(default_factory=list)
    store_ms: int = 0
    is_contested: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether a limit refused the request."""
        return any(limit.retry_after and not limit.shadow for limit in self.limits)

    @property
    def made(self) -> list[Charge]:
        """The charges that were made, of a request that was admitted."""
        return [charge for charge, limit in zip(self.charges, self.limits, strict=True) if not limit.retry_after]

    def decision(self, request: StoreRequest, target: CorrectionTarget) -> Decision:
        """Return the decision on `request`, whose charges these are."""
        settlement = Settlement(target, request._replace(charges=self.made), StoreReply((), self.now, self.store_ms))
        decision = Decision.from_limits(self.limits, settlements=(settlement,))
        decision.source = "store" if self.asked else "prefetch"
        return decision

    def refund(self) -> None:
        """Put the spent units back: the request was refused by another limit, or cancelled."""
        for index, held in self.spent.items():
            held.units += self.charges[index].cost
        self.spent = {}

    def unlock(self) -> None:
        """Let other requests prefetch these keys again."""
        for held in self.locked:
            held.is_locked = False


class PrefetchPool:
    """Holds units of hot keys, for limits with `prefetch`.

    Prefetched units count as spent from the moment they are taken, so a limit is never exceeded. Units that are not
    spent while their bucket is open are lost until the bucket leaves the window. A key is hot when it is charged twice
    within a bucket.
    """

    def __init__(self) -> None:
        self.held: BoundedCache[tuple[str, str], PrefetchedUnits] = BoundedCache(MAX_PREFETCHED_KEYS)

    def forget(self, keys: AbstractSet[str]) -> None:
        """Drop the units of these keys, because their counters were emptied."""
        for entry in [entry for entry in self.held if entry[1] in keys]:
            del self.held[entry]

    async def charge_with(
        self, ask: Callable[[StoreRequest], Awaitable[Outcome]], request: StoreRequest, now: int
    ) -> PrefetchAttempt:
        """Do as `charge`, where `ask` returns errors; they are raised."""

        async def submit(asked: Sequence[Charge]) -> StoreReply:
            outcome = await ask(request._replace(charges=asked))
            if isinstance(outcome, StoreError):
                raise outcome
            return outcome

        return await self.charge(request.charges, now, submit)

    async def charge(self, charges: Sequence[Charge], now: int, submit: Submit) -> PrefetchAttempt:
        """Charge a request from held units where there are enough, else by `submit`, which asks the store.

        Raises what `submit` raises; the held units are put back then, and also where the request is refused.
        """
        attempt = self.acquire(charges, now)
        try:
            await self._complete(attempt, submit)
            if attempt.is_refused and attempt.locked:  # Without the units ahead there may be room.
                attempt.refund()
                attempt.unlock()
                attempt = self.acquire(charges, now, more=False)
                await self._complete(attempt, submit)
        except BaseException:
            attempt.refund()
            raise
        finally:
            attempt.unlock()
        if attempt.is_refused:
            attempt.refund()
        return attempt

    async def _complete(self, attempt: PrefetchAttempt, submit: Submit) -> None:
        if attempt.asked:
            reply = await submit(attempt.asked)
            attempt.store_ms, attempt.is_contested = reply.store_ms, reply.is_contested
            attempt.limits = self.store_reply(attempt, reply.service_limits(attempt.asked), reply.store_ms)
        else:
            held = next(iter(attempt.spent.values()))
            attempt.store_ms = held.store_ms + (attempt.now - held.granted_at) // 1000
            attempt.limits = self.store_reply(attempt, (), 0)

    def acquire(self, charges: Sequence[Charge], now: int, *, more: bool = True) -> PrefetchAttempt:
        """Spend held units for these charges, and list what the store is asked for; with `more`, units ahead too."""
        attempt = PrefetchAttempt(charges, now)
        for index, charge in enumerate(charges):
            held = self._usable(charge, now)
            if held is None:
                attempt.asked.append(charge)
            elif charge.cost <= held.units:
                held.units -= charge.cost
                attempt.spent[index] = held
            else:
                remaining = held.service_limit.remaining
                extra = min(held.limit.prefetch, remaining // _REMAINING_PART) if more and not held.is_locked else 0
                if extra:
                    held.is_locked = True
                    attempt.locked.append(held)
                attempt.asked.append(charge._replace(cost=charge.cost + extra))
        return attempt

    def _usable(self, charge: Charge, now: int) -> PrefetchedUnits | None:
        limit = charge.limit
        if not isinstance(limit, EffectiveRate) or not limit.prefetch:
            return None
        held = self.held.get((limit.policy, charge.key))
        return held if held is not None and held.limit is limit and held.granted_at <= now < held.until else None

    def store_reply(
        self, attempt: PrefetchAttempt, limits: Sequence[ServiceLimit], store_ms: int
    ) -> list[ServiceLimit]:
        """Keep the units that were taken ahead, and return the service limits of all charges of the request."""
        replied, asked = iter(limits), iter(attempt.asked)
        # A request that one limit refuses charges none, so nothing was taken ahead either.
        admitted = not any(limit.retry_after and not limit.shadow for limit in limits)
        found = []
        for index, charge in enumerate(attempt.charges):
            if index in attempt.spent:
                held = attempt.spent[index]
                passed = (attempt.now - held.granted_at) / 1e6
                found.append(held.service_limit.after(passed)._replace(cost=charge.cost))
            else:
                limit = next(replied)._replace(cost=charge.cost)
                extra = next(asked).cost - charge.cost
                if admitted:
                    self._keep(charge, limit, extra, attempt.now, store_ms)
                found.append(limit)
        return found

    def _keep(self, charge: Charge, limit: ServiceLimit, units: int, now: int, store_ms: int) -> None:
        rate = charge.limit
        if not isinstance(rate, EffectiveRate) or not rate.prefetch:
            return
        # With something remaining, the limit resets when the current bucket leaves the window; until the bucket closes,
        # its units may be spent. `now` is from before the call, so that instant is never too late.
        open_ms = round(limit.reset_after * 1000) - rate.window_ms if limit.remaining else 0
        until, key = now + open_ms * 1000, (rate.policy, charge.key)
        held = self.held.get(key)
        if held is not None and held.limit is rate and now < held.until:
            units, until = units + held.units, min(until, held.until)
        self.held[key] = PrefetchedUnits(rate, units, now, until, store_ms, limit)
