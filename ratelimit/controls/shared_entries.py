"""The entries of the controls: kept in a shared map of the store, and read again when it has changed."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, TypedDict

from ratelimit._utils.texts import MAX_TEXT, readable, text_of
from ratelimit.clock import Clock
from ratelimit.controls.audit_trail import AuditTrail
from ratelimit.errors import ConfigurationError, StoreError
from ratelimit.stores.base import Store

CONTROL: Final = "!"
"""Begins the names of all entries but overrides."""

_LAST_INSTANT_US: Final = 250_000_000_000_000_000
"""Microseconds since the epoch up to which `datetime` goes, some 8,000 years."""

_REMOVED_AT_ONCE: Final = 100
"""Entries that one poll removes at most."""

OnChange = Callable[[Mapping[str, bytes]], None]
"""Takes all entries, as they are now."""


class SharedEntries:
    """Holds the entries of one shared map as they were read last, and hands them to those that `subscribe`.

    Every worker reads changes once a second in the background; requests never wait for it.
    """

    def __init__(
        self, store: Store, name: str, audit: AuditTrail, is_onlooker: Callable[[], bool] = lambda: False
    ) -> None:
        self._store, self._name, self.audit, self._is_onlooker = store, name, audit, is_onlooker
        self._seen: int | None = None
        self._refreshes, self._applied = count(), -1
        self._subscribers: list[OnChange] = []
        self.ended: list[Callable[[], Iterable[str]]] = []
        """Functions that name the entries of a control which have ended long ago."""

    @property
    def is_loaded(self) -> bool:
        """Whether the store's entries were read at least once."""
        return self._seen is not None

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change` with all entries whenever they have changed."""
        self._subscribers.append(on_change)

    async def put(
        self, entry: str, value: Mapping[str, Any] | None, *, removed: Mapping[str, str | None] | None = None
    ) -> None:
        """Write one entry, or remove it with `None`, note it in the audit trail, and read what has changed.

        `removed` says why, and by whom. Raises `StoreError`.
        """
        await self._store.put_entry(self._name, entry, None if value is None else json.dumps(value).encode())
        if value is not None:
            await self.audit.record("set", entry, value)
        elif removed is not None:
            await self.audit.record("delete", entry, removed)
        await self.refresh()

    async def remove_expired(self, entry: str) -> None:
        """Remove an entry that has ended; that is no change, and not in the audit trail. Raises `StoreError`."""
        await self._store.put_entry(self._name, entry, None)
        await self.refresh()

    async def poll(self) -> None:
        """Read what has changed, and remove some of the entries that have ended long ago; raises `StoreError` for reading alone.

        An onlooker (a command line) removes nothing: its clock may be wrong.
        """
        await self.refresh()
        names = [] if self._is_onlooker() else [name for ended in self.ended for name in ended()]
        with suppress(StoreError):  # A login may have no right to write.
            for name in names[:_REMOVED_AT_ONCE]:
                await self.remove_expired(name)

    async def refresh(self, *, force: bool = False) -> None:
        """Read what has changed (with `force`, everything); raises `StoreError`.

        If refreshes overlap, the most recently started one wins.
        """
        began = next(self._refreshes)
        found = await self._store.read_map(self._name, None if force else self._seen)
        if found is not None and began > self._applied:
            for on_change in self._subscribers:
                on_change(found.values)
            self._seen, self._applied = found.version, began


def checked_instant(until: Any, clock: Clock) -> int | None:
    """Return the end of an entry in epoch microseconds (`None`: no end), or raise `ConfigurationError`."""
    if until is None:
        return None
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise ConfigurationError(f"until: {until!r} is not an instant: write datetime(…, tzinfo=UTC) [RL309]")
    instant = round(until.timestamp() * 1_000_000)
    if not clock() < instant < _LAST_INSTANT_US:
        raise ConfigurationError(f"until: {until.isoformat()} is past or too far away; leave it out for no end [RL309]")
    return instant


def checked_text(name: str, text: Any) -> str | None:
    """Return a reason or a name, or raise `ConfigurationError` for what is no text or too long."""
    if text is not None and not (isinstance(text, str) and len(text) <= MAX_TEXT):
        raise ConfigurationError(f"{name}: must be text of at most {MAX_TEXT} characters, got {text!r:.50} [RL310]")
    if text is not None:
        check_unicode(name, text)
    return text


def checked_ending(until: Any, why: Any, by: Any, clock: Clock) -> dict[str, Any]:
    """Return what every entry has, as it is stored: its end, the reason and who wrote it; or raise `ConfigurationError`."""
    return {
        "until": checked_instant(until, clock),
        "why": checked_text("why", why),
        "by": checked_text("by", by),
    }


def check_unicode(name: str, text: str) -> None:
    """Raise `ConfigurationError` for a text that nothing could write out; the message does not show it."""
    if text != readable(text):
        raise ConfigurationError(f"{name}: is not valid Unicode [RL310]")


class Ending(TypedDict):
    """What every entry has."""

    until: datetime | None
    why: str | None
    by: str | None


def ending_of(entry: Mapping[str, Any]) -> Ending:
    """Return what every entry has, of one that was read from the store; raises what `datetime` raises."""
    until = entry["until"]
    return Ending(
        until=None if until is None else datetime.fromtimestamp(until / 1_000_000, UTC),
        why=text_of(entry.get("why")),
        by=text_of(entry.get("by")),
    )


def key_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return whom an entry that was read from the store is for."""
    return {readable(str(dimension)): readable(str(value)) for dimension, value in entry["key"].items()}
