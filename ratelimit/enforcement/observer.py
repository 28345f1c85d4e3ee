"""The observer: hands what was decided to the log, the tallies and the listeners."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from ratelimit.clock import monotonic
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import CorrectionEvent, DecisionEvent, Result, StoreEvent
from ratelimit.enforcement.listeners import Listeners
from ratelimit.enforcement.refusal_log import RefusalLog
from ratelimit.enforcement.tallies import Tallies
from ratelimit.errors import StoreTimeout
from ratelimit.model.charge import Charge
from ratelimit.stores.messages import StoreReply, StoreRequest

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
        self._said: set[str] = set()
        self.is_timing = listeners.hears_decisions
        """Whether decisions are of interest, and how long they take."""

    def count(self) -> Tallies:
        """Count decisions from now on, and return the tallies."""
        if self.tallies is None:
            self.tallies, self.is_timing = Tallies(), True
        return self.tallies

    def has_to_know(self, decision: Decision) -> bool:
        """Say whether a decision is of interest to anything."""
        return self.is_timing or not decision.allowed or bool(decision.refused_in_shadow)

    def decided(  # noqa: PLR0917 - on the path of each request
        self,
        decision: Decision,
        charges: Sequence[Charge],
        result: Result,
        seconds: float,
        place: Place,
        label: Callable[[], str],
        request_id: str | None,
    ) -> None:
        """Take note of a decision."""
        if self.tallies is not None:
            self.tallies.decided(decision, charges, result, seconds)
        is_noted = not decision.allowed or bool(decision.refused_in_shadow)
        if not (is_noted or self.listeners.hears_decisions):
            return
        event = DecisionEvent(
            result=result,
            decision=decision,
            charges=charges,
            source=decision.source,
            method=place.method,
            route=place.template,
            label=label(),
            seconds=seconds,
            request_id=request_id,
        )
        if is_noted:
            self.refusal_log.note(event)
        self.listeners.decision(event)

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

    async def timed(self, submit: Callable[[StoreRequest], Awaitable[StoreReply]], request: StoreRequest) -> StoreReply:
        """Make a call to the store, and take note of how long it took and how it ended."""
        tallies = self.tallies
        if tallies is None:
            return await submit(request)
        began, outcome = monotonic(), "error"
        try:
            reply = await submit(request)
            outcome = "ok"
        except StoreTimeout:
            outcome = "timeout"
            raise
        finally:
            tallies.called(request.operation.name.lower(), outcome, monotonic() - began)
        return reply

    def failed(self, where: str) -> None:
        """Take note of an error that changed no answer."""
        if self.tallies is not None:
            self.tallies.failed(where)

    def store_changed(self, error: BaseException | None) -> None:
        """Take note that the store became unavailable, because of an error, or is available again."""
        if self.tallies is not None:
            self.tallies.store_changed(is_available=error is None)
        self.listeners.store(StoreEvent(is_available=error is None, error=None if error is None else str(error)))

    async def flush(self) -> None:
        """Write the summaries of refusals that are due."""
        self.refusal_log.flush()


_UNLIMITED = Decision(allowed=True)
