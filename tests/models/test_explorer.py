"""The explorer itself: it visits every state once, shows shortest traces, and finds states without a way out."""

from collections.abc import Iterator

from tests.models.explorer import Explorer

Pair = tuple[int, int]


def steps(pair: Pair) -> Iterator[tuple[str, Pair]]:
    """Two counters up to 3, each of which moves on by itself."""
    left, right = pair
    if left < 3:
        yield "left", (left + 1, right)
    if right < 3:
        yield "right", (left, right + 1)


def is_end(pair: Pair) -> bool:
    return pair == (3, 3)


def same(pair: Pair) -> Pair:
    return pair


def sort(pair: Pair) -> Pair:
    return min(pair), max(pair)


def is_well(pair: Pair) -> str:
    return ""


def test_every_state_is_visited_once() -> None:
    """Two counters of four values have sixteen states, and 24 transitions."""
    found = Explorer(steps, same, is_well, is_end).run((0, 0))
    assert (found.states, found.transitions, found.depth, found.quiescent) == (16, 24, 6, 1)
    assert found.is_sound


def test_states_that_differ_in_names_are_one() -> None:
    """Pairs without order: 4 · 5 / 2 states."""
    assert Explorer(steps, sort, is_well, is_end).run((0, 0)).states == 10


def test_a_broken_rule_has_a_shortest_trace() -> None:
    """Of all ways to a sum of 2 on the left, the one of two steps."""
    found = Explorer(steps, sort, lambda pair: "two apart" if abs(pair[0] - pair[1]) == 2 else "", is_end).run((0, 0))
    assert found.broken == "two apart"
    assert found.trace in (["left", "left"], ["right", "right"])
    assert not found.is_sound
    assert "two apart" in str(found)


def test_a_state_without_a_way_to_an_end_is_found() -> None:
    """A step that leads aside, from where nothing goes on."""

    def with_trap(pair: Pair) -> Iterator[tuple[str, Pair]]:
        if pair != (9, 9):
            yield from steps(pair)
        if pair == (1, 1):
            yield "aside", (9, 9)

    found = Explorer(with_trap, same, is_well, is_end).run((0, 0))
    assert not found.broken
    assert found.stuck is not None
    assert found.stuck[-1] == "aside"
    assert len(found.stuck) == 3
