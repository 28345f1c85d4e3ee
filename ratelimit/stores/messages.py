"""Requests to a store and its replies."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from ratelimit.errors import StoreError
from ratelimit.model.charge import Charge
from ratelimit.model.kinds import NEVER
from ratelimit.model.service_limit import Reading, ServiceLimit, service_limits


class Operation(IntEnum):
    """What a store does with the charges of one request. From `ACQUIRE` on, a holder and an instant go with them."""

    CHARGE = 0
    """Make all enforcing charges, or none of them where one has no room; make a shadow's where it has room itself."""
    PEEK = 1
    """Make none."""
    USAGE = 2
    """Make none, and read (used, reset_ms, used in the previous period) for each."""
    ACQUIRE = 3
    """As `CHARGE`; the permits that are taken belong to the holder."""
    ADJUST = 4
    """Change what was charged at `charged_at` by the costs, positive or negative, whether or not there is room;
    permits are taken from the holder."""
    RELEASE = 5
    """Take the costs, which are negative, off what is counted now; none of them where one exceeds what was charged."""
    RENEW = 6
    """Start the holder's leases again."""


CORRECTIONS: Final = (Operation.ADJUST, Operation.RENEW)
"""Operations that the store completes by itself once they were sent: no caller decides anything by their reply."""


OnOrphaned = Callable[["StoreRequest", "StoreReply | None"], None]
"""Takes a request whose caller has gone, and the reply, which is `None` where the outcome is unknown."""


class StoreRequest(NamedTuple):
    """The charges of one request and what to do with them, all together in one step.

    `charged_at` is the store's own instant (ms) from an earlier reply; 0 means now. `on_orphaned(request, reply)` is
    called if the caller was cancelled before the reply arrived; `reply` is `None` if the outcome is unknown.
    """

    charges: Sequence[Charge]
    operation: Operation = Operation.CHARGE
    holder: int = 0
    charged_at: int = 0
    on_orphaned: "OnOrphaned | None" = None

    @property
    def permit_releases(self) -> list[Charge]:
        """What releases the permits that this request may have taken."""
        return [charge._replace(cost=-1) for charge in self.charges]

    def is_refused(self, reply: "StoreReply") -> bool:
        """Say whether `reply` refuses this request: nothing of it was done. A full shadow refuses nothing."""
        for _, _, wait_ms in reply.readings:  # Most requests end here.
            if wait_ms > 0:
                break
        else:
            return False
        waits = [(charge, wait_ms) for charge, (_, _, wait_ms) in zip(self.charges, reply.readings, strict=True)]
        if self.operation == Operation.RELEASE:
            return any(wait_ms == NEVER for _, wait_ms in waits)
        return any(wait_ms > 0 and not charge.limit.shadow for charge, wait_ms in waits)

    def has_written(self, reply: "StoreReply") -> bool:
        """Say whether `reply` shows that the store accepts writes: something was charged or corrected."""
        if self.operation in (Operation.PEEK, Operation.USAGE):
            return False
        return all(wait_ms <= 0 for _, _, wait_ms in reply.readings)

    def made(self, reply: "StoreReply") -> Sequence[Charge]:
        """Return the charges that were made, of a request that was admitted: a full shadow was charged nothing."""
        for _, _, wait_ms in reply.readings:
            if wait_ms > 0:
                pairs = zip(self.charges, reply.readings, strict=True)
                return [charge for charge, (_, _, wait_ms) in pairs if wait_ms <= 0]
        return self.charges


_new: Final = tuple.__new__
"""Makes a named tuple without calling its constructor, which takes longer."""


def new_request(charges: Sequence[Charge], operation: Operation, on_orphaned: OnOrphaned | None = None) -> StoreRequest:
    """Return a request that charges now, with a random number for who holds its permits, where it takes any."""
    holder = secrets.randbits(52) + 1 if operation == Operation.ACQUIRE else 0
    return _new(StoreRequest, (charges, operation, holder, 0, on_orphaned))


class StoreReply(NamedTuple):
    """A store's reply to one request: a `Reading` for each charge.

    `now` is this process's clock in epoch microseconds. `store_ms` is the instant by the store's own clock in
    milliseconds; only the store can interpret it, as `StoreRequest.charged_at`. A refusal `is_contested` if charges that
    may be given back a moment later have caused it.
    """

    readings: Sequence[Reading]
    now: int
    store_ms: int
    is_contested: bool = False

    def service_limits(self, charges: Sequence[Charge]) -> list[ServiceLimit]:
        """Return the service limits of the charges that were asked for."""
        return service_limits(charges, self.readings, self.now)


Outcome = StoreReply | StoreError
"""How a request ended."""


class SharedMap(NamedTuple):
    """A few named values that all users of a store share. Every change gives the map a version it never had before."""

    version: int
    values: Mapping[str, bytes]
