"""The promise, in a model: whatever order messages and timers have, each request is counted as its caller was told."""

import pytest

from tests.models.explorer import Exploration, Explorer
from tests.models.protocol import Protocol
from tests.models.protocol_state import Configuration, Fault

FAULTS: dict[Fault, tuple[Configuration, str, int]] = {
    "recall without tombstone": (Configuration(requests=1), "counted 2 times", 7),
    "retry under another id": (Configuration(requests=1), "counted 2 times", 5),
    "refusal sent twice is forgotten": (Configuration(limit=1, cancels=True, losses=0), "counted 1 times", 11),
    "orphaned charge is kept": (Configuration(requests=1), "counted 2 times", 7),
    "hand-over forgets its id": (Configuration(requests=1), "counted 0 times", 7),
    "hand-over is sent again with another id": (Configuration(requests=1), "counted 2 times", 11),
    "breaker drops the hand-over": (Configuration(requests=1, threshold=1), "counted 0 times", 5),
    "correction in doubt is forgotten": (Configuration(requests=1), "counted 0 times", 8),
    "worker enforces the whole limit": (Configuration(requests=2), "more than its share", 4),
    "kept reply expires": (Configuration(requests=1), "counted 2 times", 8),
}
"""For each fault that is planted a configuration, the rule that it breaks, and the length of a shortest trace."""


def explored(configuration: Configuration) -> Exploration:
    protocol = Protocol(configuration)
    return Explorer(protocol.steps, protocol.canonical, protocol.broken, protocol.is_quiescent).run(protocol.initial())


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(requests=2, limit=1, cancels=True),
        Configuration(requests=3, losses=1, threshold=1),
        Configuration(requests=1, limit=4, others=2, refunds=True),
        Configuration(requests=1, crashes=1),
    ],
    ids=["two requests", "three requests, one loss", "refunds", "a worker is killed"],
)
def test_nothing_is_counted_twice_and_nothing_is_lost(configuration: Configuration) -> None:
    """In every state that two workers and a store can reach, and from each of them all comes to rest."""
    found = explored(configuration)
    assert found.is_sound, str(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    """Each with a shortest trace: no step of it can be left out."""
    configuration, broken, length = FAULTS[fault]
    assert explored(configuration).is_sound
    found = explored(Configuration(**{**vars(configuration), "fault": fault}))
    assert broken in found.broken
    assert len(found.trace) == length, str(found)


def test_a_refund_that_overtakes_its_hand_over_is_lost_at_an_empty_counter() -> None:
    """No counter falls below 0. That is a known limit: it errs towards admitting less, and only where nobody else used units."""
    found = explored(Configuration(requests=1, refunds=True))
    assert "the store has 1 units at the end, for 0 that were charged" in found.broken
    executed = [step for step in found.trace if "executes" in step]
    assert ["-1 for request 1" in step for step in executed] == [True, False], str(found)
