"""What a request has taken from a store, and how it is renewed, settled and given back."""

import asyncio
from collections.abc import Awaitable, Generator, Mapping, Sequence
from threading import Lock
from typing import Final, Protocol

from ratelimit.charge import Charge
from ratelimit.stores import Op, Request

_LOCK: Final = Lock()
"""Held while something is noted, which any thread may do."""

_BEATS: Final = 3
"""How often a lease is renewed in its own length, so that one renewal may fail."""


class Sender(Protocol):
    """Takes corrections to where the charges were made."""

    @property
    def countable(self) -> set[str]:
        """The policies and units that may be settled."""

    @property
    def closed(self) -> bool:
        """Whether nothing is renewed any more."""

    def send(self, request: Request) -> Awaitable[None]:
        """Write a correction; it has begun when the call returns, and goes on if who waits for it is cancelled."""


class Done:
    """Nothing to wait for."""

    def __await__(self) -> Generator[None]:
        yield from ()


DONE: Final = Done()


class Receipt:
    """What one decision has charged and holds: the charges that were made, by whom, and the store's own instant.

    A charge is always changed by the difference to what it is known to be, and that is noted before the store is
    asked: however often and by whomever something is settled or given back, it is done once.
    """

    __slots__ = ("_at", "_charges", "_costs", "_holder", "_noted", "_sender", "_slots", "_timer")

    def __init__(self, sender: Sender, charges: Sequence[Charge], holder: int, at: int) -> None:
        self._sender, self._charges = sender, charges
        self._holder, self._at = holder, at
        self._costs: dict[Charge, int] | None = None
        self._slots: list[Charge] | None = None
        self._noted: dict[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def countable(self) -> set[str]:
        """The policies and units of the settings that may be spent and settled."""
        return self._sender.countable

    @property
    def unsettled(self) -> bool:
        """Whether something was noted that the store does not know yet."""
        return bool(self._noted)

    def spend(self, costs: Mapping[str, int]) -> None:
        """Note what was spent so far, in addition to what was noted or settled before."""
        with _LOCK:
            noted = self._noted = self._noted or {}
            for name, amount in costs.items():
                noted[name] = noted.get(name, 0) + amount

    def settle(self, costs: Mapping[str, int]) -> Awaitable[None]:
        """Make the charges of these policies and units what was really spent, in one step."""
        with _LOCK:
            self._noted = {**(self._noted or {}), **costs}
        return self._adjust(self._differences(costs))

    def refund(self, status: int) -> Awaitable[None]:
        """Give back, for good, the charges whose policies ask for it where the app answers with `status`."""
        costs = self._charged()
        refunded = [charge for charge in costs if status in charge.terms.refund_on]
        return self._adjust([charge._replace(cost=-cost) for charge in refunded if (cost := costs.pop(charge))])

    def undo(self) -> Awaitable[None]:
        """Give back everything."""
        slots = [slot._replace(cost=-1) for slot in self._taken_slots(None)]
        return self._adjust([*slots, *(change for charge in self._charged() for change in self._change(charge, 0))])

    def finish(self, hold: str | None = None) -> Awaitable[None]:
        """Give back the slots (only those of `hold`), and settle what was noted, in one step."""
        slots = [slot._replace(cost=-1) for slot in self._taken_slots(hold)]
        with _LOCK:
            noted = dict(self._noted or ()) if hold is None else None
        return self._adjust([*slots, *(self._differences(noted) if noted else ())])

    def keep(self) -> None:
        """Renew the leases of the slots from now on, until they are given back."""
        slots = self._held()
        if slots:
            pause = min(slot.terms.lease for slot in slots) / 1000 / _BEATS
            self._timer = asyncio.get_running_loop().call_later(pause, self._beat)

    def _beat(self) -> None:
        if slots := self._held():
            if not self._sender.closed:  # Opened again, it goes on.
                self._sender.send(Request(slots, Op.RENEW, self._holder))
            self.keep()

    def _held(self) -> list[Charge]:
        if self._slots is None:
            self._slots = [charge for charge in self._charges if charge.terms.kind == "concurrency"]
        return self._slots

    def _taken_slots(self, hold: str | None) -> list[Charge]:
        """Return the slots that are to be given back now, and know no more of them."""
        slots = self._held()
        taken = [slot for slot in slots if hold in (None, slot.terms.hold)]
        self._slots = [slot for slot in slots if slot not in taken]
        if not self._slots and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return taken

    def _charged(self) -> dict[Charge, int]:
        """Return what is known to be charged for each, beside the slots."""
        if self._costs is None:
            self._costs = {charge: charge.cost for charge in self._charges if charge.terms.kind != "concurrency"}
        return self._costs

    def _differences(self, costs: Mapping[str, int]) -> list[Charge]:
        changes = []
        for charge in self._charged():
            actual = costs.get(charge.terms.policy, costs.get(charge.terms.unit))
            if actual is not None:
                changes += self._change(charge, actual)
        return changes

    def _change(self, charge: Charge, actual: int) -> list[Charge]:
        """Note that `charge` is now `actual`, and return what makes it so."""
        costs = self._charged()
        difference, costs[charge] = actual - costs[charge], actual
        return [charge._replace(cost=difference)] if difference else []

    def _adjust(self, changes: Sequence[Charge]) -> Awaitable[None]:
        return self._sender.send(Request(changes, Op.ADJUST, self._holder, self._at)) if changes else DONE
