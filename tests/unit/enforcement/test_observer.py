"""The observer: hands on to the log, the tallies and the listeners what happens."""

import logging

import pytest

from ratelimit import Listener
from ratelimit.enforcement.events import ReloadEvent, StoreCallEvent
from ratelimit.enforcement.listeners import Listeners
from ratelimit.enforcement.observer import Observer
from ratelimit.errors import StoreTimeout, StoreUnavailable
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest


class Hearing(Listener):
    """Keeps what it gets to know."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def on_reload(self, event: ReloadEvent) -> None:
        self.events.append(event)

    def on_store_call(self, event: StoreCallEvent) -> None:
        self.events.append((event.operation, event.outcome, event.seconds >= 0))


def test_reloads_are_logged_counted_and_heard(caplog: pytest.LogCaptureFixture) -> None:
    """A rejected one as an error, with the reason."""
    hearing = Hearing()
    observer = Observer(Listeners([hearing]))
    tallies = observer.count()
    events = [ReloadEvent(result="applied"), ReloadEvent(result="rejected", error="limits.0.rate: is no rate")]
    with caplog.at_level(logging.INFO, "ratelimit"):
        for event in events:
            observer.reloaded(event)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "limits.0.rate: is no rate" in caplog.text
    assert tallies.reloads == {"applied": 1, "unchanged": 0, "rejected": 1}
    assert hearing.events == events


def test_calls_to_the_store_are_timed_where_that_is_of_interest() -> None:
    """By how they ended; without tallies and listeners no clock is read."""
    assert Observer(Listeners()).began_call() == 0.0
    hearing = Hearing()
    observer = Observer(Listeners([hearing]))
    request, began = StoreRequest([], Operation.PEEK), observer.began_call()
    assert began > 0
    for outcome in (StoreReply((), 0, 0), StoreTimeout("late"), StoreUnavailable("down")):
        observer.called(request, outcome, began)
    assert hearing.events == [("peek", "ok", True), ("peek", "timeout", True), ("peek", "error", True)]
