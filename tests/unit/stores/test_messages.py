"""Requests and replies: what a reply says about its request."""

import pytest

from ratelimit.model.charge import Charge
from ratelimit.model.kinds import NEVER
from ratelimit.model.service_limit import Reading
from ratelimit.stores.messages import CORRECTIONS, Operation, StoreReply, StoreRequest
from ratelimit.testing.factories import window_limit

ENFORCED, SHADOW = Charge(window_limit(5), "a"), Charge(window_limit(5, shadow=True), "b")
ROOM: Reading = (4, 1000, 0)
LAST: Reading = (0, 1000, -1000)
FULL: Reading = (0, 1000, 1000)


def reply(*readings: Reading) -> StoreReply:
    return StoreReply(readings, 1_700_000_000_000_000, 1_700_000_000_000)


@pytest.mark.parametrize(
    ("readings", "is_refused"),
    [((ROOM, ROOM), False), ((LAST, ROOM), False), ((FULL, ROOM), True), ((ROOM, FULL), False), ((FULL, FULL), True)],
)
def test_a_request_is_refused_by_limits_that_are_enforced(readings: tuple[Reading, ...], *, is_refused: bool) -> None:
    """A shadow that is full refuses nothing."""
    assert StoreRequest([ENFORCED, SHADOW]).is_refused(reply(*readings)) is is_refused


def test_a_release_is_refused_where_less_was_charged() -> None:
    """A limit that is still full after the release refuses nothing."""
    request = StoreRequest([ENFORCED._replace(cost=-1)], Operation.RELEASE)
    assert not request.is_refused(reply(FULL))
    assert request.is_refused(reply((0, 1000, NEVER)))


def test_a_full_shadow_was_charged_nothing() -> None:
    """`made` are the charges that a correction may change."""
    request = StoreRequest([ENFORCED, SHADOW])
    assert list(request.made(reply(ROOM, LAST))) == [ENFORCED, SHADOW]
    assert list(request.made(reply(ROOM, FULL))) == [ENFORCED]


@pytest.mark.parametrize(
    ("operation", "reading", "has_written"),
    [
        (Operation.CHARGE, ROOM, True),
        (Operation.CHARGE, LAST, True),
        (Operation.CHARGE, FULL, False),
        (Operation.ADJUST, LAST, True),
        (Operation.PEEK, ROOM, False),
        (Operation.USAGE, ROOM, False),
    ],
)
def test_only_an_admitted_charge_shows_that_the_store_accepts_writes(
    operation: Operation, reading: Reading, *, has_written: bool
) -> None:
    """A store that cannot be written to may still answer reads and refusals."""
    assert StoreRequest([ENFORCED], operation).has_written(reply(reading)) is has_written


def test_a_reply_is_dated_by_this_process() -> None:
    """Service limits are made of its readings and `now`; the store's own instant is for corrections alone."""
    (limit,) = StoreReply([ROOM], 5_000_000, 99_000).service_limits([ENFORCED])
    assert (limit.remaining, limit.reset_at, limit.reset_after) == (4, 6.0, 1.0)


def test_corrections_are_completed_by_the_store() -> None:
    """Operations that no caller waits for to decide something: their order on the wire is from `ACQUIRE` on."""
    assert CORRECTIONS == (Operation.ADJUST, Operation.RENEW)
    assert [operation.name for operation in Operation if operation >= Operation.ACQUIRE] == [
        "ACQUIRE",
        "ADJUST",
        "RELEASE",
        "RENEW",
    ]
