"""The refusal log: the first of a policy at once, then one summary in ten seconds."""

import logging

import pytest

from ratelimit import Decision, ServiceLimit
from ratelimit.enforcement.events import DecisionEvent
from ratelimit.enforcement.refusal_log import INTERVAL_S, LINES_PER_SECOND, RefusalLog


class Time:
    """A clock in seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(label: str, *, shadow: bool = False) -> DecisionEvent:
    limit = ServiceLimit("token", "limit", "token", 5, 0, 60, 0.0, 3.0, shadow=shadow)
    decision = Decision.from_limits([limit])
    return DecisionEvent(result="admitted" if shadow else "refused", decision=decision, label=label)


def note(log: RefusalLog, event: DecisionEvent) -> None:
    log.note(event.decision, hash(event.label), lambda: event)


def test_summaries_come_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """With the numbers since the last one, and of callers; a policy that has become quiet is forgotten."""
    time = Time()
    log = RefusalLog(time)
    note(log, refusal("a"))
    assert caplog.messages == ["policy token: 1 refused, 1 caller, a [RL511]"]
    for label in ("a", "b", "a"):
        note(log, refusal(label))
    note(log, refusal("c", shadow=True))
    log.flush()
    assert len(caplog.messages) == 1
    time.now += INTERVAL_S
    log.flush()
    assert caplog.messages[1:] == ["policy token: 3 refused, 1 would have been refused (shadow), 3 callers [RL511]"]
    for _ in range(3):
        time.now += INTERVAL_S
        log.flush()
    note(log, refusal("d"))
    assert caplog.messages[2:] == ["policy token: 1 refused, 1 caller, d [RL511]"]


def test_an_unavailable_store_is_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    """No policy refused."""
    event = DecisionEvent(result="unavailable", decision=Decision.unavailable(), label="a")
    note(RefusalLog(Time()), event)
    assert caplog.messages == ["policy on_store_failure: 1 refused, 1 caller, a [RL511]"]


def test_a_flood_of_refusals_is_sampled(caplog: pytest.LogCaptureFixture) -> None:
    """So many lines a second, and no event is made for more; the summary counts all of them."""
    time = Time()
    log = RefusalLog(time)
    event, made = refusal("a"), list[int]()

    def make() -> DecisionEvent:
        made.append(1)
        return event

    with caplog.at_level(logging.INFO, "ratelimit"):
        for second in range(2):
            time.now = float(second)
            for _ in range(LINES_PER_SECOND + 30):
                log.note(event.decision, 1, make)
    lines = [line for line in caplog.messages if line.startswith("refused")]
    assert (len(lines), len(made)) == (2 * LINES_PER_SECOND, 2 * LINES_PER_SECOND)
    log.flush(all_of_them=True)
    assert caplog.messages[-1].startswith(f"policy token: {2 * LINES_PER_SECOND + 59} refused")
