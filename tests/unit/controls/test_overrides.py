"""Overrides: how they are written, read and refused; `tests/behaviour/test_overrides.py` tests their effect."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ratelimit import ConfigurationError, Limiter, MemoryStore, Override, Rate, RateLimitSettings, StoreError
from ratelimit.controls.overrides import Overrides
from ratelimit.stores.messages import SharedMap
from ratelimit.testing import ManualClock
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings.model_validate(
    {
        "limits": [
            {"name": "rate", "rate": "10/minute", "per": "org"},
            {"name": "both", "rate": "10/minute", "per": ["token", "endpoint"]},
        ],
        "quotas": [{"name": "quota", "limit": 10, "period": "day", "per": "org"}],
    }
)


class Recorded(MemoryStore):
    """A store that counts how often its maps were read, and which version the reader knew."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.reads: list[int | None] = []

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        self.reads.append(seen)
        return await super().read_map(name, seen)


def overrides_of(store: MemoryStore, clock: ManualClock) -> Overrides:
    return Limiter(SETTINGS, store, clock).overrides


async def test_only_changes_are_read(clock: ManualClock) -> None:
    """A refresh asks for what is newer than the known version, and with `force` for everything."""
    store = Recorded(clock)
    overrides = overrides_of(store, clock)
    assert len(overrides) == 0
    await overrides.refresh()
    await overrides.refresh()
    await overrides.refresh(force=True)
    assert store.reads == [None, 0, None]


async def test_overrides_are_listed_as_they_were_set(clock: ManualClock) -> None:
    """Sorted by policy and key; a token is shown as its hash, by which it can be deleted again."""
    overrides = overrides_of(MemoryStore(clock=clock), clock)
    until = in_seconds(clock, 60)
    await overrides.set(policy="rate", key={"org": "b"}, rate="5/hour", until=until)
    await overrides.set(policy="rate", key={"org": "a"}, rate=7)
    await overrides.set(policy="quota", key={"org": "a"}, rate=99)
    await overrides.set(policy="both", key={"token": "secret", "endpoint": "GET /x"}, rate=Rate(1, 1))
    both, *others = await overrides.list()
    assert others == [
        Override(policy="quota", key={"org": "a"}, rate=99),
        Override(policy="rate", key={"org": "a"}, rate=Rate(7, 60)),
        Override(policy="rate", key={"org": "b"}, rate=Rate(5, 3600), until=until),
    ]
    assert set(both.key) == {"token_hash", "endpoint"}
    assert "secret" not in repr(both)
    assert await overrides.delete(policy="both", key=both.key)
    assert not await overrides.delete(policy="both", key=both.key)
    assert len(overrides) == 3


async def test_overrides_that_have_ended_are_removed_when_one_is_set(clock: ManualClock) -> None:
    """The store does not fill up with them, and they are listed no longer."""
    store = MemoryStore(clock=clock)
    overrides = overrides_of(store, clock)
    await overrides.set(policy="rate", key={"org": "a"}, rate=7, until=in_seconds(clock, 60))
    clock.advance(seconds=61)
    assert await overrides.list() == []
    assert len(overrides) == 1
    await overrides.set(policy="rate", key={"org": "b"}, rate=7)
    await overrides.refresh()
    assert len(overrides) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": "x"}, "policy: 'x' is not one of both, quota, rate"),
        ({"key": {"token": "x"}}, "key: 'rate' is counted by org, got token"),
        ({"key": None}, "key: say who: key={'token': …} for one caller, plan='pro' for a plan, key={} for all callers"),
        ({"plan": "pro"}, "key: say who"),
        ({"key": None, "plan": ""}, "plan: is empty"),
        ({"key": None, "plan": 5}, "plan: must be text"),
        ({"why": 5}, "why: must be text of at most 500 characters, got 5"),
        ({"by": "x" * 501}, "by: must be text of at most 500 characters"),
        ({"rate": 1.5}, "rate: 'rate' needs a rate or a whole number, got 1.5"),
        ({"rate": True}, "rate: 'rate' needs a rate or a whole number, got True"),
        ({"policy": "quota", "rate": "5/hour"}, "rate: 'quota' needs a whole number, got '5/hour'"),
        ({"rate": "5/0 hours"}, "'5/0 hours' is not a rate: the period must be at least 1 second"),
        ({"until": datetime(2030, 1, 1)}, "until: datetime.datetime(2030, 1, 1, 0, 0) is not an instant"),  # noqa: DTZ001
        ({"until": "tomorrow"}, "until: 'tomorrow' is not an instant: write datetime(…, tzinfo=UTC)"),
        ({"until": datetime(2000, 1, 1, tzinfo=UTC)}, "until: 2000-01-01T00:00:00+00:00 is past or too far away"),
    ],
)
async def test_a_wrong_override_fails_and_writes_nothing(
    clock: ManualClock, wrong: dict[str, Any], message: str
) -> None:
    """The error names the argument."""
    overrides = overrides_of(MemoryStore(clock=clock), clock)
    with pytest.raises(ConfigurationError) as error:
        await overrides.set(**{"policy": "rate", "key": {"org": "a"}, "rate": 5, **wrong})
    assert message in str(error.value)
    assert await overrides.list() == []


async def test_an_entry_that_cannot_be_read_is_logged_and_stays(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version of the package may have written it, so it is not removed; the others hold."""
    store = MemoryStore(clock=clock)
    overrides = overrides_of(store, clock)
    good = {"policy": "rate", "key": {"org": "a"}, "rate": [7, 60], "until": None}
    for name, value in (("rate:a", json.dumps(good)), ("rate:b", "{"), ("rate:c", "[]"), ("rate:d", '{"rate": -1}')):
        await store.put_entry("rl:{overrides}", name, value.encode())
    await overrides.refresh()
    assert [override.key for override in await overrides.list()] == [{"org": "a"}]
    logged = [record.message for record in caplog.records]
    assert [f"override 'rate:{name}' cannot be read and has no effect [RL508]" in logged for name in "abcd"] == [
        False,
        True,
        True,
        True,
    ]
    found = await store.read_map("rl:{overrides}", None)
    assert found is not None
    assert len(found.values) == 4


async def test_an_unavailable_store_is_an_error_of_the_caller_alone(clock: ManualClock) -> None:
    """`set`, `list` and `delete` raise it, and the known overrides go on holding."""

    class Failing(MemoryStore):
        is_down = False

        async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
            if self.is_down:
                raise StoreError("down")
            return await super().read_map(name, seen)

    store = Failing(clock=clock)
    overrides = overrides_of(store, clock)
    await overrides.set(policy="rate", key={"org": "a"}, rate=7)
    store.is_down = True
    for call in (
        overrides.list(),
        overrides.refresh(),
        overrides.delete(policy="rate", key={"org": "a"}),
        overrides.set(policy="rate", key={"org": "b"}, rate=7),
    ):
        with pytest.raises(StoreError, match="down"):
            await call
    assert len(overrides) == 1
