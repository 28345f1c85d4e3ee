"""What a limit means when one request comes after another: the specifications of recorded histories.

Inputs are `("charge", cost)`, `("adjust", delta)` and `("read", 0)` for counters, `("acquire", holder)`, `("release", holder)`
and `("read", 0)` for permits. Outputs are whether it was admitted, and what remains; a read is always admitted.
"""

from collections.abc import Hashable

from tests.models.linearizability import Specification

Input = tuple[str, Hashable]


def counter(limit: int) -> Specification[int]:
    """Return the meaning of a quota, and of a sliding window without burst as long as all calls are in one window."""

    def after(used: int, call: Input, output: object) -> int | None:
        name, amount = call
        assert isinstance(amount, int)
        is_admitted = name != "charge" or used + amount <= limit
        if name == "adjust" or (name == "charge" and is_admitted):
            used = max(0, used + amount)
        return used if output in (None, (is_admitted, max(0, limit - used))) else None

    return Specification(0, after)


def permits(limit: int) -> Specification[frozenset[Hashable]]:
    """Return the meaning of a concurrency limit whose leases do not end meanwhile."""

    def after(held: frozenset[Hashable], call: Input, output: object) -> frozenset[Hashable] | None:
        name, holder = call
        is_admitted = name != "acquire" or len(held) < limit
        if name == "release":
            held -= {holder}
        elif name == "acquire" and is_admitted:
            held |= {holder}
        return held if output in (None, (is_admitted, limit - len(held))) else None

    return Specification(frozenset(), after)
