"""The observer: hands what was decided to the log, the tallies and the listeners."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from ratelimit.clock import monotonic
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import CorrectionEvent, DecisionEvent, ReloadEvent, Result, StoreCallEvent, StoreEvent
from ratelimit.enforcement.listeners import Listeners
from ratelimit.enforcement.refusal_log import RefusalLog
from ratelimit.enforcement.refusal_stream import RefusalStream
from ratelimit.enforcement.tallies import Tallies
from ratelimit.errors import StoreError, StoreTimeout
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import Outcome, StoreRequest

logger = logging.getLogger("ratelimit")


class Place(Protocol):
    """Where a request was: its method and route template."""

    @property
    def method(self) -> str:
        """The method, in upper case."""

    @property
    def template(self) -> str:
        """The route template."""


class Observer:
    """Knows who has to know of a decision. With neither tallies nor listeners, only refusals cost anything.

    `tallies` are there as soon as `count` was called.
    """

    def __init__(self, listeners: Listeners) -> None:
        self.listeners = listeners
        self.refusal_log = RefusalLog()
        self.tallies: Tallies | None = None
        self.refusals: RefusalStream | None = None
        self._said: set[str] = set()
        self.hears = listeners.hears_decisions
        self.is_timing = listeners.hears_decisions
        """Whether decisions are of interest, and how long they take."""

    def count(self, *, measures: bool = True) -> Tallies:
        """Count decisions from now on, with `measures` also how long they take and how full the limits are."""
        if self.tallies is None:
            self.tallies = Tallies(measures=measures)
        self.tallies.measures = self.tallies.measures or measures
        self.is_timing = self.is_timing or measures
        return self.tallies

    def began(self) -> float:
        """Return when a decision begins, where it is of interest how long it takes; else 0."""
        return monotonic() if self.is_timing else 0.0

    def tally(self, decision: Decision, charges: Sequence[Charge], began: float) -> None:
        """Count a decision, where decisions are counted; `began` is by `clock.monotonic`."""
        if self.tallies is not None:
            self.tallies.decided(decision, charges, monotonic() - began if began else 0.0)

    def decided(self, decision: Decision, caller: int, event: Callable[[], DecisionEvent]) -> None:
        """Take note of a refusal, or of any decision where listeners hear it; `event` makes the event when it is needed."""
        if not decision.allowed or decision.refused_in_shadow:
            self.refusal_log.note(decision, caller, event)
            if self.refusals is not None:
                self.refusals.note(decision, event)
        if self.listeners.hears_decisions:
            self.listeners.decision(event())

    def passed(self, result: Result, place: Place) -> None:
        """Take note of a request that needed no decision."""
        if self.tallies is not None:
            self.tallies.counted(result)
        if self.listeners.hears_decisions:
            event = DecisionEvent(result=result, decision=_UNLIMITED, method=place.method, route=place.template)
            self.listeners.decision(event)

    def warn_once(self, message: str) -> None:
        """Log a warning that was not logged before, for whichever middleware of this limiter."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)

    def corrected(self, event: CorrectionEvent) -> None:
        """Take note of a correction."""
        if self.tallies is not None:
            self.tallies.corrected(event)
        self.listeners.correction(event)

    def adjusted(self, changes: Sequence[Charge]) -> None:
        """Take note of what a settlement changes: more units are settled, fewer are given back."""
        if self.tallies is None and not self.listeners.hears_corrections:
            return
        for charge in changes:
            if charge.limit.kind != "concurrency":
                action: Literal["settled", "refunded"] = "settled" if charge.cost > 0 else "refunded"
                self.corrected(CorrectionEvent(policy=charge.limit.policy, action=action, units=abs(charge.cost)))

    def began_call(self) -> float:
        """Return when a call to the store begins, where it is of interest how long it takes; else 0."""
        return monotonic() if self.tallies is not None or self.listeners.hears_store_calls else 0.0

    def called(self, request: StoreRequest, outcome: Outcome, began: float) -> None:
        """Take note of a call to the store that began at `began` (by `clock.monotonic`), and of how it ended."""
        operation, seconds = request.operation.name.lower(), monotonic() - began
        how: Literal["ok", "timeout", "error"] = "ok"
        if isinstance(outcome, StoreError):
            how = "timeout" if isinstance(outcome, StoreTimeout) else "error"
        if self.tallies is not None:
            self.tallies.called(operation, how, seconds)
        if self.listeners.hears_store_calls:
            self.listeners.store_call(StoreCallEvent(operation=operation, outcome=how, seconds=seconds))

    def failed(self, where: str) -> None:
        """Take note of an error that changed no answer."""
        if self.tallies is not None:
            self.tallies.failed(where)

    def store_changed(self, error: BaseException | None) -> None:
        """Take note that the store became unavailable, because of an error, or is available again."""
        if self.tallies is not None:
            self.tallies.store_changed(is_available=error is None)
        self.listeners.store(StoreEvent(is_available=error is None, error=None if error is None else str(error)))

    def reloaded(self, event: ReloadEvent) -> None:
        """Take note that the settings were loaded again, or why they were not."""
        if event.result == "rejected":
            logger.error("the settings were not loaded again, those before stay: %s [RL124]", event.error)
        else:
            level = logging.WARNING if event.result == "applied" else logging.INFO
            logger.log(level, "the settings were loaded again: %s [RL125]", event.result)
        if self.tallies is not None:
            self.tallies.reloads[event.result] += 1
        self.listeners.reload(event)

    async def flush(self) -> None:
        """Write the summaries of refusals that are due."""
        self.refusal_log.flush()


_UNLIMITED = Decision(allowed=True)
