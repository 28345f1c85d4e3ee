"""Symmetry of requests: states that differ in the numbers of requests alone are one state."""

from collections.abc import Mapping, Sequence

from tests.models.protocol_state import Call, State, Units, Worker


def renumbered(state: State) -> State:
    """Return the state with its requests sorted by what has become of them.

    Requests of the same rank stay in the order that they have: a state may then be explored more than once, and none is
    left out.
    """
    ranks = _ranks(state)
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    if order == list(range(len(order))):
        return state
    numbers = {old: new for new, old in enumerate(order)}
    return state._replace(
        outcomes=tuple(state.outcomes[old] for old in order),
        counts=tuple(state.counts[old] for old in order),
        workers=tuple(sorted(_renumbered_worker(worker, numbers) for worker in state.workers)),
        late=tuple(sorted(_renumbered_call(call, numbers) for call in state.late)),
    )


def _ranks(state: State) -> Sequence[tuple[object, ...]]:
    """Return for each request what has become of it, without any number; those that were not asked stay last."""
    found: list[list[tuple[object, ...]]] = [[] for _ in state.outcomes]
    for worker in state.workers:
        own = worker.failures, worker.recovering, worker.used
        for each in worker.unreported:
            found[each].append((0, own))
        for units in worker.outbox:
            for each, delta in units:
                found[each].append((1, own, delta))
        for call in worker.calls:
            _rank_call(found, call, (2, own))
    for call in state.late:
        _rank_call(found, call, (3,))
    return [
        (outcome == "unasked", outcome, count, sorted(places))
        for outcome, count, places in zip(state.outcomes, state.counts, found, strict=True)
    ]


def _rank_call(found: list[list[tuple[object, ...]]], call: Call, place: tuple[object, ...]) -> None:
    for each, delta in call.units:
        found[each].append((*place, delta, call.kind, call[2:], len(call.units)))


def _renumbered_worker(worker: Worker, numbers: Mapping[int, int]) -> Worker:
    return worker._replace(
        unreported=tuple(sorted(numbers[each] for each in worker.unreported)),
        outbox=tuple(sorted(_renumbered_units(units, numbers) for units in worker.outbox)),
        calls=tuple(sorted(_renumbered_call(call, numbers) for call in worker.calls)),
    )


def _renumbered_call(call: Call, numbers: Mapping[int, int]) -> Call:
    return call._replace(units=_renumbered_units(call.units, numbers))


def _renumbered_units(units: Units, numbers: Mapping[int, int]) -> Units:
    return tuple(sorted((numbers[each], delta) for each, delta in units))
