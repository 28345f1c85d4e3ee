"""The audit trail: who has changed what; a store that cannot keep it undoes nothing."""

import logging
from datetime import timedelta
from typing import Any

import pytest

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitSettings, StoreError
from ratelimit.controls.audit_trail import MAX_CHANGES, AuditTrail
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings(limits=[Limit(name="token", rate="5/minute", per="token")])


async def test_all_changes_are_kept_with_who_and_why(store: Store, clock: ManualClock) -> None:
    """The newest first: what was changed, when, by whom, why and until when; a token only as its hash."""
    until = in_seconds(clock, 60)
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.overrides.set(
            policy="token", key={"token": "s3cret"}, rate="9/minute", until=until, why="sale", by="ann"
        )
        clock.advance(seconds=1)
        await limiter.block({"org": "acme"}, why="abuse", by="bob")
        await limiter.blocks.delete({"org": "acme"}, why="sorry", by="bob")
        await limiter.allowed.set({"ip": "192.0.2.0/24"})
        await limiter.fleet.pause(until=until, by="ann")
        await limiter.reset(Identity(token="s3cret"), why="after the incident", by="ann")
        changes = await limiter.audit.list()
    assert [(each.action, each.by, each.why, each.until) for each in changes] == [
        ("reset", "ann", "after the incident", None),
        ("set", "ann", None, until),
        ("set", None, None, None),
        ("delete", "bob", "sorry", None),
        ("set", "bob", "abuse", None),
        ("set", "ann", "sale", until),
    ]
    assert changes[-1].values["rate"] == [9, 60]
    assert changes[0].at - changes[-1].at == timedelta(seconds=1)
    assert "s3cret" not in repr(changes)


async def test_the_trail_is_bounded_and_survives_garbage(store: Store, clock: ManualClock) -> None:
    """Redis drops old entries in portions; what another writer has put in is skipped."""
    trail = AuditTrail(store, "t:{x}:audit", clock)
    await store.append_log("t:{x}:audit", [b"{", b"[]", b'{"at": "x"}'], keep=10, seconds=60)
    for number in range(MAX_CHANGES + 200):
        await trail.record("set", f"e{number}", {})
    found = await trail.list(10**6)
    assert MAX_CHANGES <= len(found) <= MAX_CHANGES + 150
    assert found[0].entry == f"e{MAX_CHANGES + 199}"


async def test_a_store_without_a_log_undoes_no_change(caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line instead."""

    class Own(MemoryStore):
        async def append_log(self, *_: Any, **__: Any) -> None:
            raise StoreError("it is full")

    limiter = Limiter(SETTINGS, Own())
    with caplog.at_level(logging.WARNING, "ratelimit"):
        await limiter.block({"org": "acme"})
    assert len(limiter.blocks) == 1
    assert "the audit trail lacks a change (set !block:org=acme): it is full" in caplog.text
