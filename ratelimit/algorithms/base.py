"""What an algorithm is: the contract that all of them fulfil, in Python here and in Lua beside it.

A new algorithm is a `NAME.py` with a state and a view, its Lua twin `NAME.lua` with the functions that
`stores/redis/scripts/decide.lua` names, a kind in `model/kinds.py` and `model/effective_limit.py`, an entry in
`stores/memory.py` and one in `stores/redis/codec.py`, and a scenario in `testing/conformance.py`.

The Lua twin returns functions of the same meaning (`load`, `evaluate`, `available`, `charge`, `status`, `save`), and the
rarer ones from `make_slow_path`. Its state is a table, of which `decide.lua` reads `dirty` (the limit under which it was
changed), `evaluated_for` (the limit of the last `evaluate`), `repaired`, and `held` (concurrency).
"""

from typing import Any, Protocol


class LimitState(Protocol):
    """All that is stored for one key. Keeps its meaning when the limit of the key changes."""

    def expires(self, limit: Any) -> int:
        """Return an instant (ms) from which this state means the same as none."""


class StateView(Protocol):
    """A state as it stands at one instant (ms) under one effective limit.

    Making a view changes nothing. `charge`, `adjust` and `release` (for concurrency `renew` too) change the state, and
    return whether it expires later than before; `repair` changes it as well. Whether there is room is for the caller to
    check first. `holder` names who holds a permit (concurrency) or which reservation is meant (pace), and means nothing
    to the other kinds.
    """

    state: Any
    available: int
    """Units that would be admitted now; negative where the limit was lowered below what is used."""

    def charge(self, cost: int, holder: int = 0) -> bool:
        """Count `cost` units now."""

    def repair(self) -> bool:
        """Write a state that a wrong clock left in the future, as it counts now; return whether it was one."""

    def adjust(self, delta: int, at: int, holder: int = 0) -> bool:
        """Change what was charged at the instant `at` (ms) by `delta` units, whether or not there is room."""

    def release(self, amount: int, holder: int = 0) -> bool:
        """Take `amount` units off what is counted now; the caller has checked that they are `releasable`."""

    @property
    def releasable(self) -> int:
        """How many units may be released."""

    @property
    def empty(self) -> bool:
        """Whether the state means the same as none and can be deleted."""

    def usage(self) -> tuple[int, int, int]:
        """Return (units used, milliseconds until that changes by itself, units used in the previous period)."""

    def status(self, cost: int) -> tuple[int, int, int]:
        """Return the `Reading` as it stands, its wait being that of a further `cost`."""

    def status_after_charge(self) -> tuple[int, int, int]:
        """Return the `Reading` after a charge: where its wait is negative, it tells when one more unit is free."""
