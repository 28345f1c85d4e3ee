"""Background polls: all actions are called, and the log has a line when they begin to fail and when they work again."""

import pytest

from ratelimit import MemoryStore, StoreError
from ratelimit.enforcement.background_polls import BackgroundPolls


class Action:
    """Fails as long as it is told to, and counts its calls."""

    def __init__(self) -> None:
        self.is_failing, self.calls = False, 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.is_failing:
            raise StoreError("down")


async def test_one_that_fails_does_not_keep_the_others_from_running(caplog: pytest.LogCaptureFixture) -> None:
    """A login may have the rights for one of them alone; the log has one line, however long it lasts."""
    caplog.set_level("INFO")
    first, second = Action(), Action()
    polls = BackgroundPolls(MemoryStore(), (first, second), lambda: False)
    first.is_failing = True
    for _ in range(3):
        await polls.run()
    assert (first.calls, second.calls) == (3, 3)
    assert len(caplog.messages) == 1
    assert "overrides, blocks, statistics or the number of workers may be out of date" in caplog.messages[0]
    first.is_failing = False
    await polls.run()
    assert "overrides, blocks, statistics and the number of workers are up to date" in caplog.messages[-1]


async def test_what_the_log_has_already_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """The requests have found out that the store is unavailable."""
    action = Action()
    action.is_failing = True
    await BackgroundPolls(MemoryStore(), (action,), lambda: True).run()
    assert caplog.messages == []
