"""Log lines about refusals: each at INFO, and what they come to, by policy, at WARNING every ten seconds."""

import logging
from collections.abc import Callable
from typing import Final

from ratelimit.clock import monotonic
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED, DecisionEvent
from ratelimit.model.service_limit import ServiceLimit

logger = logging.getLogger("ratelimit")

INTERVAL_S: Final = 10.0
"""Seconds between two summaries of one policy."""

LINES_PER_SECOND: Final = 50
"""Refusals that are logged one by one in a second; those beyond it are in the summaries alone."""

_MAX_CALLERS: Final = 1000
"""Callers that a summary tells apart."""

_MAX_POLICIES: Final = 1000
_UNAVAILABLE: Final = "on_store_failure"


class RefusalLog:
    """Logs refusals, also those that a shadow limit would have made; the first of a policy at once, then every 10 s.

    Single refusals are at INFO, up to `LINES_PER_SECOND`. uvicorn's default logging shows the summaries. A caller appears by its label alone.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._summaries: dict[str, _Summary] = {}
        self._second, self._lines = 0, 0

    def note(self, decision: Decision, caller: int, make_event: Callable[[], DecisionEvent]) -> None:
        """Log a refusal, or what a shadow limit would have refused.

        `caller` tells callers apart; the event, which is dear, is made where a line needs it.
        """
        event = make_event() if logger.isEnabledFor(logging.INFO) and self._has_room(decision) else None
        if not decision.allowed:
            policy = BLOCKED if decision.is_blocked else decision.binding.policy if decision.binding else _UNAVAILABLE
            if event is not None:
                _log_refusal(policy, event)
            self._count(policy, caller, event or make_event, in_shadow=False)
        for limit in decision.refused_in_shadow:
            if event is not None:
                _log_shadow(limit, event)
            self._count(limit.policy, caller, event or make_event, in_shadow=True)

    def flush(self, *, all_of_them: bool = False) -> None:
        """Write the summaries that are due, or all of them: at the end."""
        now = self._clock()
        for policy, summary in list(self._summaries.items()):
            if all_of_them or now >= summary.due_at:
                if summary.is_empty:
                    del self._summaries[policy]
                else:
                    self._write(policy, summary, now)

    def _has_room(self, decision: Decision) -> bool:
        """Say whether the lines of a decision may still be written in this second."""
        second, lines = int(self._clock()), len(decision.refused_in_shadow) + (not decision.allowed)
        self._lines = self._lines + lines if second == self._second else lines
        self._second = second
        return self._lines <= LINES_PER_SECOND

    def _count(
        self, policy: str, caller: int, event: DecisionEvent | Callable[[], DecisionEvent], *, in_shadow: bool
    ) -> None:
        summary = self._summaries.get(policy)
        if summary is None:
            if len(self._summaries) >= _MAX_POLICIES:
                return
            summary = self._summaries[policy] = _Summary()
        if not summary.label:
            summary.label = (event if isinstance(event, DecisionEvent) else event()).label
        summary.add(caller, in_shadow=in_shadow)
        if (now := self._clock()) >= summary.due_at:
            self._write(policy, summary, now)

    def _write(self, policy: str, summary: "_Summary", now: float) -> None:
        logger.warning("policy %s: %s [RL511]", policy, summary)
        self._summaries[policy] = _Summary(now + INTERVAL_S)


class _Summary:
    """What one policy has refused since the last line; `label` is that of its first caller."""

    def __init__(self, due_at: float = float("-inf")) -> None:
        self.due_at = due_at
        self.label = ""
        self._refused = self._in_shadow = 0
        self._callers: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._refused or self._in_shadow)

    def add(self, caller: int, *, in_shadow: bool) -> None:
        """Count one refusal of a caller."""
        self._refused += not in_shadow
        self._in_shadow += in_shadow
        if len(self._callers) < _MAX_CALLERS:
            self._callers.add(caller)

    def __str__(self) -> str:
        number = len(self._callers)
        callers = f"{number}{'+' if number >= _MAX_CALLERS else ''} caller{'' if number == 1 else 's'}"
        shadow = f", {self._in_shadow} would have been refused (shadow)" if self._in_shadow else ""
        who = f", {self.label}" if number == 1 else ""
        return f"{self._refused} refused{shadow}, {callers}{who}"


def _log_refusal(policy: str, event: DecisionEvent) -> None:
    decision = event.decision
    logger.info(
        "refused by %s (%d): scope %s, %s, %s, retry after %.3f s, request %s",
        policy,
        decision.status,
        decision.binding.scope if decision.binding is not None else "-",
        _printable(f"{event.method} {event.route}".strip()) or "a call",
        event.label,
        decision.retry_after,
        event.request_id or "-",
    )


def _printable(text: str) -> str:
    """Return a text that cannot break a line: code may hand in any endpoint."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _log_shadow(limit: ServiceLimit, event: DecisionEvent) -> None:
    logger.info(
        "shadow policy %s would have refused for %.3f s: %s of %s",
        limit.policy,
        limit.retry_after,
        _printable(event.route) or "a call",
        event.label,
    )
