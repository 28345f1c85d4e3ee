"""Values for each event loop: separate, and dropped with their loop."""

import asyncio

from ratelimit._utils.per_loop import PerLoop


def test_each_loop_has_a_value_of_its_own() -> None:
    """A value is made once for a loop, and another loop gets another one."""
    values = PerLoop(list[int])

    async def get() -> list[int]:
        assert values.get() is values.get() is values.peek()
        return values.get()

    with asyncio.Runner() as one, asyncio.Runner() as two:
        first, second = one.run(get()), two.run(get())
        assert first is not second
        assert one.run(get()) is first
        assert len(values) == 2
        assert any(each is second for each in values)


def test_values_of_closed_loops_are_dropped() -> None:
    """Any number of loops one after the other leaves one value."""
    values = PerLoop(object)

    async def get() -> None:
        values.get()

    for _ in range(5):
        asyncio.run(get())
    assert len(values) == 1


async def test_a_value_can_be_forgotten() -> None:
    """`pop` hands it out for the last time, and `peek` makes none."""
    values = PerLoop(object)
    assert values.peek() is None
    value = values.get()
    assert values.pop() is value
    assert (values.peek(), values.pop()) == (None, None)
    values.get()
    values.clear()
    assert len(values) == 0
