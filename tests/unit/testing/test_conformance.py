"""The suite for stores fails stores that are wrong.

Also tests `testing.factories` and `testing.random_requests`.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from ratelimit import MemoryStore
from ratelimit.model.charge import Charge
from ratelimit.stores.base import Store
from ratelimit.stores.messages import Operation, SharedMap, StoreReply, StoreRequest
from ratelimit.testing import ManualClock, StoreConformance


class Greedy(MemoryStore):
    """Charges where it should only look."""

    async def submit(self, request: StoreRequest) -> StoreReply:
        return await super().submit(
            request._replace(operation=Operation.CHARGE) if request.operation == Operation.PEEK else request
        )


class Separate(MemoryStore):
    """Charges one policy after the other."""

    async def submit(self, request: StoreRequest) -> StoreReply:
        answers = [await super(Separate, self).submit(request._replace(charges=[each])) for each in request.charges]
        return answers[0]._replace(readings=[answer.readings[0] for answer in answers])


class Rounding(MemoryStore):
    """Keeps costs as floats of four bytes would."""

    async def submit(self, request: StoreRequest) -> StoreReply:
        charges = [
            Charge(each.limit, each.key, each.cost & ~0xFF if each.cost > 2**24 else each.cost)
            for each in request.charges
        ]
        return await super().submit(request._replace(charges=charges))


class Forgetful(MemoryStore):
    """Knows of no leases being renewed."""

    async def submit(self, request: StoreRequest) -> StoreReply:
        return await super().submit(
            request._replace(operation=Operation.PEEK) if request.operation == Operation.RENEW else request
        )


class Stale(MemoryStore):
    """Gives every state of a shared map the same version."""

    async def read_map(self, name: str, seen: int | None) -> SharedMap | None:
        entries = await super().read_map(name, None)
        return None if seen == 1 or entries is None else SharedMap(1, entries.values)


class Unfair(MemoryStore):
    """Ignores cancelled reservations."""

    async def submit(self, request: StoreRequest) -> StoreReply:
        kept = [each for each in request.charges if each.limit.kind != "pace" or each.cost > 0]
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
        (Forgetful, "test_permits_are_held_by_lease"),
        (Stale, "test_shared_maps_are_versioned"),
        (Unfair, "test_reservations_are_evenly_spaced"),
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
