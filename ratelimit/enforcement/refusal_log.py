"""Log lines about refusals: each at INFO, and what they come to, by policy, at WARNING every ten seconds."""

import logging
from collections.abc import Callable
from typing import Final

from ratelimit.clock import monotonic
from ratelimit.enforcement.events import DecisionEvent

logger = logging.getLogger("ratelimit")

INTERVAL_S: Final = 10.0
"""Seconds between two summaries of one policy."""

_MAX_CALLERS: Final = 1000
"""Callers that a summary tells apart."""

_MAX_POLICIES: Final = 1000


class RefusalLog:
    """Logs refusals, also those that a shadow limit would have made; the first of a policy at once, then every 10 s.

    uvicorn's default logging shows the summaries. A caller appears by its label alone.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._summaries: dict[str, _Summary] = {}

    def note(self, event: DecisionEvent) -> None:
        """Log a refusal, or what a shadow limit would have refused."""
        if event.result in ("refused", "unavailable"):
            self._refused(event)
        for limit in event.decision.refused_in_shadow:
            logger.info(
                "shadow policy %s would have refused for %.3f s: %s of %s",
                limit.policy,
                limit.retry_after,
                event.route or "a call",
                event.label,
            )
            self._count(limit.policy, event.label, in_shadow=True)

    def flush(self) -> None:
        """Write the summaries that are due."""
        now = self._clock()
        for policy, summary in list(self._summaries.items()):
            if now >= summary.due_at:
                if summary.is_empty:
                    del self._summaries[policy]
                else:
                    self._write(policy, summary, now)

    def _refused(self, event: DecisionEvent) -> None:
        decision, policy = event.decision, event.policy or "on_store_failure"
        scope = decision.binding.scope if decision.binding is not None else "-"
        logger.info(
            "refused by %s (%d): scope %s, %s, %s, retry after %.3f s, request %s",
            policy,
            decision.status,
            scope,
            f"{event.method} {event.route}".strip() or "a call",
            event.label,
            decision.retry_after,
            event.request_id or "-",
        )
        self._count(policy, event.label, in_shadow=False)

    def _count(self, policy: str, label: str, *, in_shadow: bool) -> None:
        summary = self._summaries.get(policy)
        if summary is None:
            if len(self._summaries) >= _MAX_POLICIES:
                return
            summary = self._summaries[policy] = _Summary()
        summary.add(label, in_shadow=in_shadow)
        if (now := self._clock()) >= summary.due_at:
            self._write(policy, summary, now)

    def _write(self, policy: str, summary: "_Summary", now: float) -> None:
        logger.warning("policy %s: %s", policy, summary)
        self._summaries[policy] = _Summary(now + INTERVAL_S)


class _Summary:
    """What one policy has refused since the last line."""

    def __init__(self, due_at: float = float("-inf")) -> None:
        self.due_at = due_at
        self._refused = self._in_shadow = 0
        self._callers: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self._refused or self._in_shadow)

    def add(self, label: str, *, in_shadow: bool) -> None:
        """Count one refusal of a caller."""
        self._refused += not in_shadow
        self._in_shadow += in_shadow
        if len(self._callers) < _MAX_CALLERS:
            self._callers.add(label)

    def __str__(self) -> str:
        number = len(self._callers)
        callers = f"{number}{'+' if number >= _MAX_CALLERS else ''} caller{'' if number == 1 else 's'}"
        shadow = f", {self._in_shadow} would have been refused (shadow)" if self._in_shadow else ""
        who = f", {next(iter(self._callers))}" if number == 1 else ""
        return f"{self._refused} refused{shadow}, {callers}{who}"
