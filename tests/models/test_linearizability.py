"""The checker of histories: it accepts what a sequential object explains, and nothing else."""

import random
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.linearizability import NEVER, Event, Specification, unexplained
from tests.models.sequential import counter, permits

LIMIT = 3
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.integers(1, 2)),
        st.tuples(st.just("adjust"), st.integers(-2, 2)),
        st.tuples(st.just("read"), st.just(0)),
    ),
    min_size=1,
    max_size=12,
)


def recorded(calls: list[tuple[str, int]], seed: int) -> list[Event]:
    """Return a concurrent history of a counter in which these calls take effect one after another."""
    chance, used, history = random.Random(seed), 0, []
    for at, (name, amount) in enumerate(calls):
        is_admitted = name != "charge" or used + amount <= LIMIT
        if name != "read" and is_admitted:
            used = max(0, used + amount)
        output = is_admitted, max(0, LIMIT - used)
        history.append(Event(at - 3 * chance.random(), at + 3 * chance.random(), (name, amount), output))
    chance.shuffle(history)
    return history


def read(used: int, at: float = 100.0) -> Event:
    """Return a read of the counter, after all."""
    return Event(at, at, ("read", 0), (True, max(0, LIMIT - used)))


@given(CALLS, st.integers(0, 1000))
def test_histories_of_a_sequential_run_are_accepted(calls: list[tuple[str, int]], seed: int) -> None:
    """Whatever the calls are, and however they overlap."""
    assert not unexplained(recorded(calls, seed), counter(LIMIT))


@given(CALLS, st.integers(0, 1000), st.data())
def test_unknown_outcomes_are_accepted(calls: list[tuple[str, int]], seed: int, data: st.DataObject) -> None:
    """Any call that has no reply may have taken effect."""
    history = recorded(calls, seed)
    lost = data.draw(st.sets(st.integers(0, len(history) - 1)))
    unknown = [each._replace(returned=NEVER, output=None) if at in lost else each for at, each in enumerate(history)]
    assert not unexplained(unknown, counter(LIMIT))


@given(st.integers(0, LIMIT - 1), st.integers(0, 1000))
def test_a_charge_that_is_counted_twice_or_lost_is_rejected(charges: int, seed: int) -> None:
    """A read after all others shows the count, and it is not the number of charges."""
    history = recorded([("charge", 1)] * charges, seed)
    assert not unexplained([*history, read(charges)], counter(LIMIT))
    assert unexplained([*history, read(charges + 1)], counter(LIMIT))
    if charges:
        assert unexplained([*history, read(charges - 1)], counter(LIMIT))


def brute_force(history: list[Event], specification: Specification[int], state: int, used: frozenset[int]) -> bool:
    """Say whether any order explains a history, by trying all of them."""
    left = [at for at in range(len(history)) if at not in used]
    if all(history[at].returned == NEVER for at in left):
        return True
    first_end = min(history[at].returned for at in left)
    for at in left:
        event = history[at]
        if event.called <= first_end:
            after = specification.after(state, event.input, event.output)
            if after is not None and brute_force(history, specification, after, used | {at}):
                return True
    return False


@given(CALLS.map(lambda calls: calls[:5]), st.integers(0, 10**6))
def test_the_search_agrees_with_brute_force(calls: list[tuple[str, int]], seed: int) -> None:
    """Also on histories in which outputs, ends and replies were changed at random."""
    chance, history = random.Random(seed), []
    for event in recorded(calls, seed):
        changed = event._replace(output=(chance.random() < 0.7, chance.randrange(LIMIT + 1)))
        history.append(chance.choice([event, event, changed, event._replace(returned=NEVER, output=None)]))
    expected = brute_force(history, counter(LIMIT), 0, frozenset())
    assert (not unexplained(history, counter(LIMIT))) == expected


def test_a_call_without_a_reply_may_take_effect_late_and_not_early() -> None:
    """It explains a read after another one that does not show it, and no read before it began."""
    lost = Event(5, NEVER, ("charge", 1))
    assert not unexplained([lost, read(0, 10), read(1, 11)], counter(LIMIT))
    assert not unexplained([lost, read(0, 10)], counter(LIMIT))
    assert unexplained([lost, read(1, 4)], counter(LIMIT))
    assert unexplained([lost, read(1, 10), read(0, 11)], counter(LIMIT))
    assert unexplained([lost._replace(returned=9), read(0, 10)], counter(LIMIT))


@pytest.mark.parametrize(
    ("history", "is_linearizable"),
    [
        # Herlihy & Wing (1990): a read that overlaps a write sees it or not, and what one has seen a later one sees.
        ([("w", 0, 9, 1), ("r", 1, 2, 0), ("r", 3, 4, 1)], True),
        ([("w", 0, 9, 1), ("r", 1, 2, 1), ("r", 3, 4, 0)], False),
        ([("w", 0, 1, 1), ("r", 2, 3, 0)], False),
        ([("w", 0, 1, 1), ("w", 0, 1, 2), ("r", 2, 3, 1)], True),
        ([("w", 0, 1, 1), ("w", 2, 3, 2), ("r", 4, 5, 1)], False),
        ([("w", 0, 9, 1), ("w", 0, 9, 2), ("r", 1, 2, 2), ("r", 3, 4, 1), ("r", 5, 6, 2)], False),
    ],
)
def test_histories_from_the_textbook(history: list[tuple[str, int, int, int]], is_linearizable: bool) -> None:  # noqa: FBT001 - a column of the table
    """Of a register that is written and read."""

    def after(value: int, call: tuple[str, Hashable], output: object) -> int | None:
        name, written = call
        if name == "w":
            assert isinstance(written, int)
            return written
        return value if output == value else None

    events = [
        Event(begin, end, (name, value if name == "w" else 0), value if name == "r" else True)
        for name, begin, end, value in history
    ]
    assert (not unexplained(events, Specification(0, after))) == is_linearizable


def test_permits_are_held_by_their_holders() -> None:
    """A permit that is released twice is free once; one beyond the limit is never admitted."""
    taken = [Event(at, at, ("acquire", at), (True, 1 - at)) for at in range(2)]
    released = [Event(at, at, ("release", 0), (True, 1)) for at in (2, 3)]
    assert not unexplained([*taken, *released, Event(4, 4, ("acquire", 4), (True, 0))], permits(2))
    assert unexplained([*taken, Event(4, 4, ("acquire", 4), (True, 0))], permits(2))
    again = [Event(at, at, ("acquire", at), (True, 0)) for at in (4, 5)]
    assert unexplained([*taken, *released, *again], permits(2))
