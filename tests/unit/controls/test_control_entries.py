"""Control entries: each control reads its own; what cannot be read is logged once and counted, what is over is removed."""

import pytest

from ratelimit import Limit, Limiter, MemoryStore, RateLimitSettings
from ratelimit.controls.control_entries import kind_of
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings(limits=[Limit(name="a", rate="9/minute", per="token")])
SHARED = "rl:{overrides}"


async def test_an_entry_that_cannot_be_read_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the control is, and however often others change; where it changes itself, it is logged once more."""
    store = MemoryStore()
    limiter = Limiter(SETTINGS, store)
    names = ("a:x", "!block:org=x", "!allow:org=x", "!switch:paused:a")
    for name in names:
        await store.put_entry(SHARED, name, b"garbage")
    for number in range(3):
        await limiter.blocks.set({"org": f"o{number}"})
        await limiter.allowed.set({"org": f"o{number}"})
    await limiter.fleet.shadow(policy="a")
    await limiter.overrides.set(policy="a", key={}, rate=5)
    logged = [message for message in caplog.messages if message.endswith("cannot be read and has no effect [RL508]")]
    assert sorted(logged) == sorted(
        f"{kind_of(name)} {name!r} cannot be read and has no effect [RL508]" for name in names
    )
    controls = limiter.overrides, limiter.blocks, limiter.allowed, limiter.fleet
    assert [each.unreadable for each in controls] == [1, 1, 1, 1]
    await store.put_entry(SHARED, "!block:org=x", b"[]")
    await limiter.overrides.refresh()
    assert len([message for message in caplog.messages if message.startswith("block ")]) == 2
    await store.put_entry(SHARED, "!block:org=x", None)
    await limiter.overrides.refresh()
    assert limiter.blocks.unreadable == 0


async def test_entries_that_are_over_are_removed_from_the_store(clock: ManualClock) -> None:
    """When another of their kind is set: overrides, blocks, allowed callers and switches."""
    store = MemoryStore(clock=clock)
    limiter = Limiter(SETTINGS, store, clock)
    until = in_seconds(clock, 5)
    await limiter.overrides.set(policy="a", key={"token": "x"}, rate=5, until=until)
    await limiter.blocks.set({"org": "x"}, until=until)
    await limiter.allowed.set({"org": "x"}, until=until)
    await limiter.fleet.pause(policy="a", until=until)
    clock.advance(seconds=6)
    await limiter.overrides.set(policy="a", key={}, rate=5)
    await limiter.blocks.set({"org": "y"})
    await limiter.allowed.set({"org": "y"})
    await limiter.fleet.shadow(policy="a")
    found = await store.read_map(SHARED, None)
    assert found is not None
    assert sorted(found.values) == ["!allow:org=y", "!block:org=y", "!switch:shadow:a", "a:=all"]


def test_the_kind_of_an_entry_is_in_its_name() -> None:
    """Only overrides have none."""
    assert [kind_of(name) for name in ("a:x", "!block:org=x", "!switch:paused:a:b")] == ["override", "block", "switch"]
