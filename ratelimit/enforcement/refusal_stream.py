"""The stream of refusals: the last ones of all workers, each with its caller, for people who look on."""

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ratelimit.clock import Clock
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED, DecisionEvent
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.stores.base import Store

logger = logging.getLogger("ratelimit")

PER_SECOND: Final = 50
"""Refusals of one worker in a second that are in the stream."""

KEPT: Final = 1000
"""Refusals that the stream holds at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal, or what a policy in shadow would have refused; `id` is its place in the stream.

    `at` is in epoch seconds by the worker's clock, `wait` in seconds (`None`: waiting does not help). `counter` names the callers
    that share the counter of the policy (`org:acme`; hashes are whole), and `caller` is the label of the one that was refused;
    `key` names it for the controls (`token_hash`, `org`, `plan`). `limits` are all that the decision was made of.
    """

    id: str
    at: float
    policy: str
    counter: str
    caller: str
    method: str
    route: str
    status: int
    wait: float | None
    shadow: bool
    request_id: str | None = None
    key: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[ServiceLimit] = ()


class RefusalStream:
    """Collects refusals of this worker, and appends them to the stream that all workers share when it is flushed.

    `label(key, policy)` names the callers of a counter.
    """

    def __init__(
        self, store: Store, name: str, clock: Clock, seconds_kept: int, label: Callable[[str, str], str]
    ) -> None:
        self._store, self._name, self._clock, self._seconds, self._label = store, name, clock, seconds_kept, label
        self._waiting: deque[bytes] = deque(maxlen=KEPT)
        self._second, self._number = 0, 0

    def note(self, decision: Decision, make_event: Callable[[], DecisionEvent]) -> None:
        """Take a refusal in, as long as there is room in this second; the event is made where it is needed."""
        now = self._clock()
        if now // 1_000_000 != self._second:
            self._second, self._number = now // 1_000_000, 0
        if self._number >= PER_SECOND:
            return
        event = make_event()
        found = [(each.policy, each.retry_after, True) for each in decision.refused_in_shadow]
        if not decision.allowed:
            policy = BLOCKED if decision.is_blocked else event.policy or ""
            found.insert(0, (policy, decision.retry_after, False))
        keys = {charge.limit.policy: charge.key for charge in event.charges}
        for policy, wait, shadow in found:
            self._number += 1
            counter = self._label(keys[policy], policy) if policy in keys else event.label
            self._waiting.append(_encoded(now, policy, counter, wait, event, shadow=shadow))

    async def flush(self) -> None:
        """Append what was collected; raises `StoreError`, and it is lost then."""
        waiting, self._waiting = self._waiting, deque(maxlen=KEPT)
        if waiting:
            await self._store.append_log(self._name, list(waiting), keep=KEPT, seconds=self._seconds)

    def clear(self) -> None:
        """Forget what was collected: another process appends it."""
        self._waiting.clear()

    async def read(self, *, last: int = 100, after: str | None = None) -> Sequence[Refusal]:
        """Return the last refusals, or the first so many after an id, the oldest first; raises `StoreError`."""
        found = await self._store.read_log(self._name, last=last, after=after)
        return [refusal for place, value in found if (refusal := _readable(place, value)) is not None]


def _encoded(now: int, policy: str, counter: str, wait: float, event: DecisionEvent, *, shadow: bool) -> bytes:
    values: dict[str, Any] = {
        "at": now / 1e6,
        "policy": policy,
        "counter": counter,
        "caller": event.label,
        "method": event.method,
        "route": event.route,
        "status": event.decision.status,
        "wait": wait if math.isfinite(wait) else None,
        "shadow": shadow,
        "request_id": event.request_id,
        "key": dict(event.caller),
        "limits": event.decision.limits,
    }
    return json.dumps(values).encode()


def _readable(place: str, value: bytes) -> Refusal | None:
    try:
        found = json.loads(value)
        limits = tuple(ServiceLimit(*limit) for limit in found.pop("limits", ()))
        return Refusal(id=place, limits=limits, **found)
    except (ValueError, TypeError, RecursionError):
        logger.exception("an entry of the stream of refusals cannot be read [RL508]")
        return None
