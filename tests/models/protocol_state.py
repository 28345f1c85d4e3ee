"""What the model of the protocol consists of: the store, the workers, and the calls on their way."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Units = tuple[tuple[int, int], ...]
"""For each request the units that a call adds for it: 1, or -1 where they are given back."""

Kind = Literal["charge", "correction", "hand-over"]
"""Who made a call: `Enforcer.decide`, `Enforcer.correct`, `CorrectionOutbox.flush`."""

Outcome = Literal["unasked", "asked", "admitted", "locally", "none", "unknown"]
"""What the caller of a request knows: `admitted` by the store or `locally`; `none`: refused, cancelled or refunded, so
that nothing may stay counted; `unknown`: its worker was killed."""

Fault = Literal[
    "recall without tombstone",
    "retry under another id",
    "refusal sent twice is forgotten",
    "orphaned charge is kept",
    "hand-over forgets its id",
    "hand-over is sent again with another id",
    "breaker drops the hand-over",
    "correction in doubt is forgotten",
    "worker enforces the whole limit",
    "kept reply expires",
]


class Call(NamedTuple):
    """A call of a worker (`PendingCall`), with what the server keeps for it.

    `waits`: its caller waits for the reply; else the call is in doubt. `copies` have not arrived yet, and may. `kept`: it
    was executed, and the server keeps the reply under the call's key. `refused`: a refusal is on its way back.
    """

    kind: Kind
    units: Units
    waits: bool = True
    copies: int = 1
    retried: bool = False
    kept: bool = False
    refused: bool = False


class Worker(NamedTuple):
    """A worker: its breaker, local fallback, outbox and calls.

    `failures` and `recovering` are those of `CircuitBreaker`. `used` is what the local fallback has counted. `unreported`
    are the requests that are still to be handed over, `outbox` the corrections that were kept.
    """

    failures: int = 0
    recovering: bool = False
    used: int = 0
    unreported: tuple[int, ...] = ()
    outbox: tuple[Units, ...] = ()
    calls: tuple[Call, ...] = ()


class State(NamedTuple):
    """Everything at one moment. `counts` are the units that the store has counted for each request.

    `total` is what the store has for the key. `late` are calls that no worker knows any more, and that may still arrive.
    """

    outcomes: tuple[Outcome, ...]
    counts: tuple[int, ...]
    total: int
    workers: tuple[Worker, ...]
    late: tuple[Call, ...] = ()
    crashes: int = 0
    """How many workers may still be killed."""
    losses: int = -1
    """How many calls may still be given up; negative: any number."""


@dataclass(frozen=True)
class Configuration:
    """How large the model is, and which of its steps are possible. `others` are units that other callers have used."""

    workers: int = 2
    requests: int = 3
    limit: int = 2
    others: int = 0
    threshold: int = 2
    cancels: bool = False
    refunds: bool = False
    crashes: int = 0
    losses: int = -1
    fault: Fault | None = None

    @property
    def share(self) -> int:
        """The units that each worker admits without the store (`LocalFallback._local_limit`)."""
        return self.limit if self.fault == "worker enforces the whole limit" else self.fair_share

    @property
    def fair_share(self) -> int:
        """An equal part of the limit, and one unit at least."""
        return max(1, (self.limit - self.others) // self.workers)


def name_of(call: Call) -> str:
    """Return how traces name a call."""
    return f"the {call.kind} of {' and '.join(f'{delta:+} for request {request + 1}' for request, delta in call.units)}"


def known(state: State, request: int, outcome: Outcome) -> State:
    """Return the state in which the caller of a request knows this outcome."""
    outcomes = state.outcomes
    return state._replace(outcomes=(*outcomes[:request], outcome, *outcomes[request + 1 :]))


def with_worker(state: State, number: int, worker: Worker) -> State:
    """Return the state with this worker in place of the one with its number."""
    outcomes, counts, total, workers, late, crashes, losses = state  # Twice as fast as `_replace`.
    workers = (*workers[:number], worker, *workers[number + 1 :])
    return State(outcomes, counts, total, workers, late, crashes, losses)


def calling(worker: Worker, *calls: Call) -> Worker:
    """Return the worker with more calls under way."""
    return worker._replace(calls=tuple(sorted((*worker.calls, *calls))))


def in_doubt(call: Call) -> Call:
    """Return a call that nobody waits for. Who made a correction, and how often a call was sent, matters no more."""
    kind: Kind = "charge" if call.kind == "charge" else "correction"
    return call._replace(kind=kind, waits=False, copies=min(call.copies, 1), retried=True, refused=False)


def forgotten(state: State, call: Call) -> State:
    """Return the state in which no worker knows the call any more; copies that are on their way may still arrive."""
    if not call.copies:
        return state
    return state._replace(late=tuple(sorted((*state.late, in_doubt(call)))))
