"""What a fault is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.faults.deployments import TOPOLOGIES, Setup
from benchmarks.faults.steps import Step, nothing

SECONDS: Final = 4.0
"""How long most faults last."""

EVERYWHERE: Final = tuple(TOPOLOGIES)
_PLAIN: Final = Setup()


@dataclass(frozen=True)
class Fault:
    """One fault: how it begins and ends, and what the limiter cannot keep in it.

    `outage` says that the store is unavailable during the fault, and `heals` that it becomes available by itself. `loses`
    names the topologies on which the fault may take counts away, so that neither the limit nor the quota can be exact,
    `exceeds` those where it ends the store's window early, and `inexact` those where the quota may be off by calls in
    flight; `why` says it in a sentence. `missing` gives the reason for each topology that cannot have the fault. `variant`
    is how a worker serves, and `clock_shifts` are the errors of the workers' wall clocks (see `worker`). The fault lasts
    for `seconds`.
    """

    name: str
    begin: Step = nothing
    end: Step = nothing
    outage: bool = True
    heals: bool = False
    loses: Collection[str] = ()
    exceeds: Collection[str] = ()
    inexact: Collection[str] = ()
    why: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    setup: Setup = _PLAIN
    variant: str = "plain"
    clock_shifts: tuple[str, ...] = ("0",)
    seconds: float = SECONDS

    def keeps_limit(self, topology: str) -> bool:
        """Return whether no window may hold more than the limit."""
        return topology not in self.loses and topology not in self.exceeds

    def keeps_data(self, topology: str) -> bool:
        """Return whether the quota has to be exact."""
        return topology not in self.loses and topology not in self.inexact
