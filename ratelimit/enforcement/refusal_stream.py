"""The stream of refusals: the last ones of all workers, each with its caller, for people who look on."""

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from ratelimit._utils.sampling import LogOnce
from ratelimit._utils.texts import readable
from ratelimit._utils.validation import is_int_between, is_number
from ratelimit.clock import Clock
from ratelimit.enforcement.decision import Decision
from ratelimit.enforcement.events import BLOCKED, DecisionEvent
from ratelimit.model.calendar_period import NOMINAL
from ratelimit.model.kinds import Kind
from ratelimit.model.service_limit import ServiceLimit
from ratelimit.stores.base import Store

logger = logging.getLogger("ratelimit")

PER_SECOND: Final = 50
"""Refusals of one worker in a second that are in the stream."""

KEPT: Final = 1000
"""Refusals that the stream holds at least."""

_STATUSES: Final = (403, 429, 503)
_MOST: Final = 2**63
"""Units beyond those that any counter holds."""

_LAST_INSTANT: Final = 250_000_000_000
"""Seconds since the epoch up to which `datetime` goes, some 8,000 years."""


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
        self._unreadable = LogOnce(logger)
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
        return [refusal for place, value in found if (refusal := self._readable(place, value)) is not None]

    def _readable(self, place: str, value: bytes) -> Refusal | None:
        try:
            return _decoded(place, value)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            self._unreadable.error("entry %s of the stream of refusals %r cannot be read [RL508]", place, self._name)
            return None


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


def _decoded(place: str, value: bytes) -> Refusal:
    """Return an entry; raises what is raised by one that another program has written."""
    found = json.loads(value)
    wait, request_id = found["wait"], found["request_id"]
    return Refusal(
        id=place,
        at=_instant(found["at"]),
        wait=None if wait is None else _seconds(wait),
        status=int(found["status"]),
        shadow=bool(found["shadow"]),
        request_id=None if request_id is None else readable(str(request_id)),
        key={readable(name): readable(str(each)) for name, each in found["key"].items()},
        limits=tuple(_limit(each) for each in found["limits"]),
        **{name: readable(str(found[name])) for name in ("policy", "counter", "caller", "method", "route")},
    )


def _limit(values: Sequence[Any]) -> ServiceLimit:
    found = ServiceLimit(*values)
    words = [each for each in (found.code, found.detail) if each is not None]
    units = found.limit, found.remaining, found.window, found.cost
    is_known = found.kind in get_args(Kind) and found.period in (None, *NOMINAL) and found.status in _STATUSES
    if not is_known or not all(isinstance(each, str) for each in (found.policy, found.scope, found.unit, *words)):
        raise ValueError("no service limit")
    if not all(is_int_between(each, -_MOST, _MOST) for each in units):
        raise ValueError("no service limit")
    for each in (found.reset_at, found.reset_after, found.more_after or 0):
        _instant(each)
    _seconds(found.retry_after)
    return found


def _instant(seconds: Any) -> float:
    """Return seconds that a date can have, or raise `ValueError`."""
    if not is_number(seconds) or not abs(seconds) <= _LAST_INSTANT:
        raise ValueError("no instant")
    return seconds


def _seconds(wait: Any) -> float:
    """Return a wait, which may be infinite, or raise `ValueError`."""
    if not is_number(wait) or not wait >= 0:
        raise ValueError("no wait")
    return float(wait)
