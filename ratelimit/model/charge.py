"""Charges: what a store is asked to count."""

from dataclasses import replace
from typing import NamedTuple

from ratelimit.model.effective_limit import EffectiveLimit


class Charge(NamedTuple):
    """One debit of `cost` units under one effective limit at one key: all that a store knows.

    A negative cost is a credit, in the operations that allow one. A holder takes one permit of a concurrency limit,
    whatever the cost.
    """

    # A tuple, because several are made for each request and a frozen dataclass takes four times as long to make.

    limit: EffectiveLimit
    key: str
    cost: int = 1

    @property
    def others(self) -> "list[Charge]":
        """The same units in the other windows that count them: they are made with this charge, and refuse nothing."""
        limit, key, cost = self
        return [Charge(each.limit, key.replace(each.own_part, each.key_part, 1), cost) for each in limit.other_windows]

    @property
    def apart(self) -> "list[Charge]":
        """This charge and those in other windows, each as a charge of its own that counts in one window alone."""
        if not self.limit.other_windows:
            return [self]
        return [self._replace(limit=replace(self.limit, other_windows=())), *self.others]
