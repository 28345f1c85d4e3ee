"""Concurrency, twin of `concurrency.lua`: a number of permits, each with a lease that expires unless it is renewed.

A holder is a random number, drawn by the worker that asks for the permit. A permit whose lease has expired does not
count, whether or not it is still stored.
"""

from dataclasses import dataclass, field
from typing import Final

from ratelimit.model.effective_limit import EffectiveConcurrency
from ratelimit.model.kinds import NEVER

MAX_RETRY_MS: Final = 1000
"""The longest wait, in milliseconds, that a refusal names: a permit may be released at any moment."""


MAX_LEASE_MS: Final = 86_400_000
"""The longest lease that a policy may have, in milliseconds."""


@dataclass(slots=True)
class ConcurrencyState:
    """The state of one key: when (ms) the lease of each holder expires, and an instant before which none does."""

    holders: dict[int, int] = field(default_factory=dict)
    first_expiry: int = 0

    @property
    def units(self) -> int:
        """The permits that are held."""
        return len(self.holders)

    def merged(self, other: "ConcurrencyState") -> "ConcurrencyState":
        """Return a state with the holders of both."""
        holders = {**self.holders, **other.holders}
        return ConcurrencyState(holders, min(holders.values(), default=0))

    def expires(self, limit: EffectiveConcurrency) -> int:  # noqa: ARG002 - the leases say it
        """Return an instant (ms) from which this state means the same as none."""
        # The margin covers a clock that steps back a little.
        return max(self.holders.values(), default=0) + MAX_RETRY_MS


class ConcurrencyView:
    """Permits as they stand at one instant (ms) under one effective limit; see `StateView`."""

    __slots__ = ("available", "held", "limit", "now", "state")

    def __init__(self, state: ConcurrencyState, limit: EffectiveConcurrency, now: int) -> None:
        self.state, self.limit, self.now = state, limit, now
        self._count()

    def _count(self) -> None:
        state = self.state
        self.held = len(state.holders) if state.first_expiry > self.now else len(self._expiries())
        self.available = self.limit.caller_capacity - self.held

    def _expiries(self) -> list[int]:
        return [expiry for expiry in self.state.holders.values() if expiry > self.now]

    def charge(self, cost: int, holder: int = 0) -> bool:  # noqa: ARG002 - a holder takes one permit
        """Give `holder` a permit; the state expires later then."""
        state, expiry = self.state, self.now + self.limit.lease_ms
        state.holders[holder] = expiry
        if state.first_expiry <= self.now:
            state.holders = {each: ends for each, ends in state.holders.items() if ends > self.now}
            state.first_expiry = min(state.holders.values())
        state.first_expiry = min(state.first_expiry, expiry)
        self._count()
        return True

    def repair(self) -> bool:
        """Shorten leases that last longer than any lease may: a wrong clock started them."""
        if self.available >= 1 or max(self.state.holders.values(), default=0) <= self.now + MAX_LEASE_MS:
            return False
        state, ends = self.state, self.now + self.limit.lease_ms
        state.holders = {
            holder: ends if expiry > self.now + MAX_LEASE_MS else expiry for holder, expiry in state.holders.items()
        }
        state.first_expiry = min(state.holders.values())
        return True

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take the holder's permit away or, where `delta` is positive, give it one, whether or not there is room."""
        return self.charge(1, holder) if delta > 0 else self.release(1, holder)

    def release(self, amount: int, holder: int = 0) -> bool:  # noqa: ARG002
        """Take the holder's permit away, if it has one."""
        self.state.holders.pop(holder, None)
        self._count()
        return False

    def renew(self, holder: int) -> bool:
        """Start the lease of `holder` again; a lease that has expired is not revived."""
        return self.state.holders.get(holder, 0) > self.now and self.charge(1, holder)

    @property
    def empty(self) -> bool:
        """Whether the state means the same as none, also to a clock that steps back."""
        return not self.state.holders

    @property
    def releasable(self) -> int:
        """How many permits are held."""
        return self.held

    def usage(self) -> tuple[int, int, int]:
        """Return (permits held, 0, 0)."""
        return self.held, 0, 0

    def status(self, cost: int) -> tuple[int, int, int]:  # noqa: ARG002
        """Return (remaining, reset, wait) as they stand; durations in ms."""
        if self.available >= 1:
            return self.limit.advertised_limit - self.held, 0, 0
        if self.limit.caller_capacity < 1:
            return 0, 0, NEVER
        wait = min(MAX_RETRY_MS, min(self._expiries()) - self.now)
        return 0, wait, wait

    def status_after_charge(self) -> tuple[int, int, int]:
        """Return (remaining, reset, wait) after a permit was given: `wait` is negative where none is left."""
        remaining, reset, wait = self.status(1)
        return remaining, reset, -wait
