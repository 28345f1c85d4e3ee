"""Control entries: those of one control (overrides, blocks, allowed callers or switches), as they hold in this worker."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from ratelimit.clock import Clock
from ratelimit.controls.shared_entries import CONTROL, SharedEntries, checked_text

logger = logging.getLogger("ratelimit")

_MAX_BYTES: Final = 65_536
"""Bytes of an entry that is parsed: one that an operator writes has a few hundred."""

_MAX_LINES: Final = 20
"""Entries that cannot be read and are named in the log, of those that are found at once."""

_KEPT_US: Final = 86_400_000_000
"""Microseconds for which an entry that is over stays at most: who was blocked, and why, is not kept for ever."""

_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError)


class _Ending(Protocol):
    def is_over(self, now: int) -> bool: ...


EntryT = TypeVar("EntryT", bound=_Ending)


class ControlEntries(Generic[EntryT]):
    """Reads the shared entries of one kind with `parse`, and calls `on_change` when they may have changed.

    `known` are the entries by their names, with those that are over. An entry that cannot be read has no effect, stays in the
    store, is counted in `unreadable`, and is logged once: by its name alone, since its text is anyone's.
    """

    def __init__(
        self,
        shared: SharedEntries,
        kind: str,
        parse: Callable[[Any], EntryT],
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._shared, self._kind, self._parse, self._clock, self._on_change = shared, kind, parse, clock, on_change
        self._unreadable: set[tuple[str, int]] = set()
        self.known: dict[str, EntryT] = {}
        shared.subscribe(self._apply)
        shared.ended.append(self._long_over)

    @property
    def unreadable(self) -> int:
        """The number of stored entries that cannot be read."""
        return len(self._unreadable)

    def holding(self) -> dict[str, EntryT]:
        """Return the entries that are not over, by their names."""
        now = self._clock()
        return {name: entry for name, entry in self.known.items() if not entry.is_over(now)}

    def _long_over(self) -> list[str]:
        then = self._clock() - _KEPT_US
        return [name for name, entry in self.known.items() if entry.is_over(then)]

    async def put(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write one entry, and remove those that are over; raises `StoreError`."""
        await self._shared.put(name, entry)
        for old in self.known.keys() - self.holding().keys():
            await self._shared.remove_expired(old)

    async def delete(self, name: str, why: str | None, by: str | None) -> bool:
        """Remove one entry and return whether there was one; raises `ConfigurationError` and `StoreError`."""
        reason = {"why": checked_text("why", why), "by": checked_text("by", by)}
        await self._shared.refresh()
        existed = name in self.known
        await self._shared.put(name, None, removed=reason if existed else None)
        return existed

    async def refresh(self, *, force: bool = False) -> None:
        """Read what has changed (with `force`, everything); raises `StoreError`."""
        await self._shared.refresh(force=force)

    def _apply(self, entries: Mapping[str, bytes]) -> None:
        logged, self._unreadable, self.known = self._unreadable, set(), {}
        for name, value in entries.items():
            if kind_of(name) == self._kind:
                try:
                    self.known[name] = self._parsed(value)
                except _UNREADABLE:
                    self._unreadable.add((name, hash(value)))
        self._log_unreadable(sorted(self._unreadable - logged))
        self._on_change()

    def _parsed(self, value: bytes) -> EntryT:
        if len(value) > _MAX_BYTES:
            raise ValueError("too long")
        return self._parse(json.loads(value))

    def _log_unreadable(self, found: Sequence[tuple[str, int]]) -> None:
        for name, _ in found[:_MAX_LINES]:
            logger.error("%s %.200r cannot be read and has no effect [RL508]", self._kind, name)
        if len(found) > _MAX_LINES:
            more = len(found) - _MAX_LINES
            logger.error("%d more %ss cannot be read and have no effect [RL508]", more, self._kind)


def kind_of(name: str) -> str:
    """Return the kind of an entry by its name: `block` of `!block:…`; what has no such beginning is an override."""
    return name[len(CONTROL) :].partition(":")[0] if name.startswith(CONTROL) else "override"
