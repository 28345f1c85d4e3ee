"""Listeners are called for what they define (`enforcement.observer` decides when), and bounded where they are async."""

import asyncio

from ratelimit import Listener
from ratelimit.enforcement.events import OverrideEvent, ReloadEvent, StoreEvent
from ratelimit.enforcement.listeners import MAX_PENDING, Listeners


class Reloads(Listener):
    """Counts, and waits for what never comes."""

    def __init__(self) -> None:
        self.called = 0

    async def on_reload(self, event: ReloadEvent) -> None:
        self.called += 1
        await asyncio.Event().wait()


async def test_what_is_not_defined_is_not_called() -> None:
    """So that it costs nothing."""
    listeners = Listeners([Listener(), Reloads()])
    assert not listeners.hears_decisions
    assert not listeners.hears_corrections
    listeners.store(StoreEvent(is_available=True))
    listeners.override(OverrideEvent(overrides=0, blocks=0))


async def test_async_calls_are_bounded() -> None:
    """Events beyond that are left out, and nothing is awaited."""
    hanging = Reloads()
    listeners = Listeners([hanging])
    for _ in range(MAX_PENDING + 50):
        listeners.reload(ReloadEvent(result="applied"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert hanging.called == MAX_PENDING
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_an_async_failure_is_counted() -> None:
    """As a sync one."""

    class Failing(Listener):
        async def on_reload(self, event: ReloadEvent) -> None:
            raise ValueError

    listeners = Listeners([Failing()])
    listeners.reload(ReloadEvent(result="unchanged"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert listeners.failed == 1
