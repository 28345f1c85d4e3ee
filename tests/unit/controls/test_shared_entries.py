"""Shared entries: read when they have changed, and handed to all that use them."""

import json
from collections.abc import Mapping

from ratelimit import MemoryStore
from ratelimit._utils.texts import text_of
from ratelimit.clock import system_clock
from ratelimit.controls.audit_trail import AuditTrail
from ratelimit.controls.shared_entries import SharedEntries


async def test_subscribers_get_all_entries_after_each_change() -> None:
    """One that is removed is missing; without a change they are not called."""
    store = MemoryStore()
    entries = SharedEntries(store, "rl:{x}", AuditTrail(store, "rl:{x}:audit", system_clock))
    seen: list[Mapping[str, bytes]] = []
    entries.subscribe(seen.append)
    assert not entries.is_loaded
    await entries.put("a", {"n": 1})
    await entries.put("b", {"n": 2})
    await entries.refresh()
    await entries.put("a", None)
    assert entries.is_loaded
    assert [{name: json.loads(value)["n"] for name, value in each.items()} for each in seen] == [
        {"a": 1},
        {"a": 1, "b": 2},
        {"b": 2},
    ]
    await entries.refresh(force=True)
    assert len(seen) == 4
    await entries.remove_expired("b")
    assert [(each.action, each.entry) for each in await entries.audit.list()] == [("set", "b"), ("set", "a")]


def test_a_text_from_the_store_is_bounded() -> None:
    """Another writer may have put in anything."""
    assert (text_of(None), text_of(5), len(text_of("x" * 9999) or "")) == (None, "5", 500)
