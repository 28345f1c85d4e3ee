"""The suite for stores fails stores that are wrong."""

from collections.abc import Mapping
from typing import Any

import pytest

from ratelimit import MemoryStore
from ratelimit.charge import Charge
from ratelimit.stores import Answer, Notes, Op, Request, Store
from ratelimit.testing import ManualClock, StoreConformance


class Greedy(MemoryStore):
    """Charges where it should only look."""

    async def submit(self, request: Request) -> Answer:
        return await super().submit(request._replace(op=Op.CHARGE) if request.op == Op.PEEK else request)


class Separate(MemoryStore):
    """Charges one policy after the other."""

    async def submit(self, request: Request) -> Answer:
        answers = [await super(Separate, self).submit(request._replace(charges=[each])) for each in request.charges]
        return answers[0]._replace(numbers=[answer.numbers[0] for answer in answers])


class Rounding(MemoryStore):
    """Keeps costs as floats of four bytes would."""

    async def submit(self, request: Request) -> Answer:
        charges = [
            Charge(each.terms, each.key, each.cost & ~0xFF if each.cost > 2**24 else each.cost)
            for each in request.charges
        ]
        return await super().submit(request._replace(charges=charges))


class Forgetful(MemoryStore):
    """Knows of no leases being renewed."""

    async def submit(self, request: Request) -> Answer:
        return await super().submit(request._replace(op=Op.PEEK) if request.op == Op.RENEW else request)


class Stale(MemoryStore):
    """Calls all its notes by one version."""

    async def notes(self, book: str, seen: int | None) -> Notes | None:
        notes = await super().notes(book, None)
        return None if seen == 1 or notes is None else Notes(1, notes.values)


class Unfair(MemoryStore):
    """Gives turns back to nobody."""

    async def submit(self, request: Request) -> Answer:
        kept = [each for each in request.charges if each.terms.kind != "pace" or each.cost > 0]
        return await super().submit(request._replace(charges=kept))


def failures(kind: type[MemoryStore]) -> Mapping[str, BaseException]:
    class Suite(StoreConformance):
        def make_store(self, clock: ManualClock) -> Store:
            return kind(clock=clock)

    failed = dict[str, BaseException]()
    for name in dir(Suite):
        if name.startswith("test_"):
            test: Any = getattr(Suite(), name)
            try:
                test()
            except Exception as error:  # noqa: BLE001 - whatever tells that it is wrong
                failed[name] = error
    return failed


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Greedy, "test_peek_changes_nothing"),
        (Separate, "test_all_or_nothing"),
        (Rounding, "test_large_numbers_are_exact"),
        (Forgetful, "test_slots_are_held_by_lease"),
        (Stale, "test_notes_are_kept_by_version"),
        (Unfair, "test_turns_follow_each_other"),
    ],
)
def test_a_wrong_store_fails(kind: type[MemoryStore], found: str) -> None:
    """In the test that tells what is wrong with it."""
    assert found in failures(kind)


def test_a_right_store_passes() -> None:
    """Without a plugin for asyncio, and with a docstring for each promise."""
    assert failures(MemoryStore) == {}
    tests = [getattr(StoreConformance, name) for name in dir(StoreConformance) if name.startswith("test_")]
    assert len(tests) >= 20
    assert all(test.__doc__ for test in tests)


def test_a_store_has_to_be_made() -> None:
    """The suite itself is no test."""
    with pytest.raises(NotImplementedError):
        StoreConformance().make_store(ManualClock())
