"""The audit trail: who has changed what while the app ran, when, why and until when."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ratelimit._utils.sampling import LogOnce
from ratelimit._utils.texts import readable, text_of
from ratelimit.clock import Clock
from ratelimit.errors import StoreError
from ratelimit.stores.base import Store

logger = logging.getLogger("ratelimit")

MAX_CHANGES: Final = 1000
"""Changes that are kept at least; older ones are dropped."""

_KEPT_S: Final = 366 * 86_400
_NOT_SHOWN: Final = ("why", "by", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change by an operator: `action` on the `entry`, with its `values`; `at` is when, by the clock of the worker."""

    at: datetime
    action: str
    entry: str
    values: Mapping[str, Any]
    until: datetime | None = None
    why: str | None = None
    by: str | None = None


class AuditTrail:
    """Keeps the changes of overrides, blocks, allowed callers, fleet switches and counters, of all workers, in the store."""

    def __init__(self, store: Store, name: str, clock: Clock) -> None:
        self._store, self._name, self._clock = store, name, clock
        self._unreadable = LogOnce(logger)

    async def record(self, action: str, entry: str, values: Mapping[str, Any]) -> None:
        """Note a change that was made. A store that cannot keep it does not undo the change; the log has a line."""
        noted = {"at": self._clock(), "action": action, "entry": entry, "values": dict(values)}
        try:
            await self._store.append_log(self._name, [json.dumps(noted).encode()], keep=MAX_CHANGES, seconds=_KEPT_S)
        except StoreError as error:
            logger.warning("the audit trail lacks a change (%s %s): %s [RL509]", action, entry, error)

    async def list(self, last: int = 100) -> Sequence[Change]:
        """Return the last changes, the newest first; raises `StoreError`."""
        found = await self._store.read_log(self._name, last=last)
        read = [self._readable(place, value) for place, value in reversed(found)]
        return [change for change in read if change is not None]

    def _readable(self, place: str, value: bytes) -> Change | None:
        try:
            return _change(value)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
            self._unreadable.error("entry %s of the audit trail %r cannot be read [RL508]", place, self._name)
            return None


def _change(value: bytes) -> Change:
    noted = json.loads(value)
    values = noted["values"]
    return Change(
        at=_instant(noted["at"]),
        action=readable(str(noted["action"])),
        entry=readable(str(noted["entry"])),
        values={name: each for name, each in values.items() if name not in _NOT_SHOWN},
        until=None if values.get("until") is None else _instant(values["until"]),
        why=text_of(values.get("why")),
        by=text_of(values.get("by")),
    )


def _instant(us: float) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)
