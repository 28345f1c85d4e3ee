"""Settlements: what one decision has charged, and how it is corrected, renewed and released afterwards."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveConcurrency
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest

_RENEWALS_PER_LEASE: Final = 3
"""How often a lease is renewed in its own length, so that one renewal may fail."""


@dataclass(slots=True, eq=False)
class CorrectionTarget:
    """Where corrections of a decision go: to the store, or to this worker's local fallback.

    `write` starts a correction at once and returns what waits for it; the correction goes on if the waiting caller is
    cancelled, and never fails. `settleable` are the policies and units that may be settled. `is_closed` says whether
    lease renewal has stopped in the running event loop. `lock` guards what several threads may record.
    """

    write: Callable[[StoreRequest], Awaitable[None]]
    settleable: AbstractSet[str]
    is_closed: Callable[[], bool]
    lock: Lock = field(default_factory=Lock)


class _Completed:
    """An awaitable that is already done."""

    def __await__(self) -> Generator[None]:
        yield from ()


COMPLETED: Final = _Completed()


class Settlement:
    """The charges of one decision, as a request to the store and its reply: what it was charged, and when.

    A shadow limit that had no room was not charged, and is left out.

    Corrections are sent as deltas against the last known amount, which is updated before the call. Repeating a
    settlement or refund therefore has no further effect.
    """

    __slots__ = ("_charged", "_permits", "_recorded", "_reply", "_request", "_target", "_timer")

    def __init__(self, target: CorrectionTarget, request: StoreRequest, reply: StoreReply) -> None:
        self._target, self._request, self._reply = target, request, reply
        self._charged: dict[Charge, int] | None = None
        self._permits: list[Charge] | None = None
        self._recorded: dict[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def settleable(self) -> AbstractSet[str]:
        """The policies and units that may be recorded and settled."""
        return self._target.settleable

    @property
    def has_unsettled(self) -> bool:
        """Whether something was recorded that the store does not know yet."""
        return bool(self._recorded)

    @property
    def renews_at(self) -> float | None:
        """When the permits are renewed next (event loop's clock), or `None` where nothing is renewed."""
        return None if self._timer is None else self._timer.when()

    def record(self, costs: Mapping[str, int]) -> None:
        """Add these costs to those that were recorded before; any thread may call it."""
        with self._target.lock:
            recorded = self._recorded = self._recorded or {}
            for name, amount in costs.items():
                recorded[name] = recorded.get(name, 0) + amount

    def settle(self, costs: Mapping[str, int]) -> Awaitable[None]:
        """Change the charges of these policies and units to the actual cost, in one step."""
        with self._target.lock:
            self._recorded = {**(self._recorded or {}), **costs}
        return self._adjust(self._differences(costs))

    def refund(self, status: int) -> Awaitable[None]:
        """Give back, for good, the charges whose policies ask for it where the app answers with `status`."""
        charged = self._known_amounts()
        refunded = [charge for charge in charged if status in charge.limit.refund_on]
        return self._adjust([charge._replace(cost=-cost) for charge in refunded if (cost := charged.pop(charge))])

    def void(self) -> Awaitable[None]:
        """Give everything back."""
        permits = [permit._replace(cost=-1) for permit in self._take_permits(None)]
        changes = [change for charge in self._known_amounts() for change in self._change(charge, 0)]
        return self._adjust([*permits, *changes])

    def release(self, hold: str | None = None) -> Awaitable[None]:
        """Release the permits (only those with this `hold`), and settle what was recorded, in one step."""
        permits = [permit._replace(cost=-1) for permit in self._take_permits(hold)]
        with self._target.lock:
            recorded = dict(self._recorded or ()) if hold is None else None
        return self._adjust([*permits, *(self._differences(recorded) if recorded else ())])

    def start_renewal(self) -> None:
        """Renew the leases of the permits from now on, until they are released."""
        leases = [each.limit.lease_ms for each in self._held() if isinstance(each.limit, EffectiveConcurrency)]
        if leases:
            pause = min(leases) / 1000 / _RENEWALS_PER_LEASE
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(pause, self.renew)

    def renew(self) -> None:
        """Renew the leases now, and go on renewing them; does nothing where no permit is held."""
        if permits := self._held():
            if not self._target.is_closed():  # Renewal goes on when the limiter is opened again.
                self._target.write(StoreRequest(permits, Operation.RENEW, self._request.holder))
            self.start_renewal()

    def _made(self) -> Sequence[Charge]:
        return self._request.made(self._reply)

    def _held(self) -> list[Charge]:
        if self._permits is None:
            self._permits = [charge for charge in self._made() if charge.limit.kind == "concurrency"]
        return self._permits

    def _take_permits(self, hold: str | None) -> list[Charge]:
        """Return the permits that are to be released now, and forget them."""
        held = self._held()
        taken = [each for each in held if hold is None or getattr(each.limit, "hold", None) == hold]
        self._permits = [each for each in held if each not in taken]
        if not self._permits and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return taken

    def _known_amounts(self) -> dict[Charge, int]:
        """Return the last known amount of each charge, apart from permits."""
        if self._charged is None:
            self._charged = {charge: charge.cost for charge in self._made() if charge.limit.kind != "concurrency"}
        return self._charged

    def _differences(self, costs: Mapping[str, int]) -> list[Charge]:
        changes = []
        for charge in self._known_amounts():
            actual = costs.get(charge.limit.policy, costs.get(charge.limit.unit))
            if actual is not None:
                changes += self._change(charge, actual)
        return changes

    def _change(self, charge: Charge, actual: int) -> list[Charge]:
        """Note that `charge` now amounts to `actual`, and return the delta that makes it so."""
        amounts = self._known_amounts()
        delta, amounts[charge] = actual - amounts[charge], actual
        return [charge._replace(cost=delta)] if delta else []

    def _adjust(self, changes: Sequence[Charge]) -> Awaitable[None]:
        if not changes:
            return COMPLETED
        return self._target.write(StoreRequest(changes, Operation.ADJUST, self._request.holder, self._reply.store_ms))
