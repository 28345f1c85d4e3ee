"""Requests that need several calls, because their keys lie in several hash slots: all or nothing over all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, TypeVar

from ratelimit._utils.tasks import BackgroundTasks
from ratelimit.errors import StoreError, StorePartiallyUnavailable
from ratelimit.model.charge import Charge
from ratelimit.model.effective_limit import EffectiveLimit, EffectiveRate
from ratelimit.model.rate import MAX_LIMIT
from ratelimit.model.service_limit import Reading
from ratelimit.stores.messages import CORRECTIONS, Operation, StoreReply, StoreRequest

K = TypeVar("K", bound=Hashable)

_AMPLE: Final = 100
"""Requests like this one for which a part has room: then a race for the last units is unlikely."""

_CONTESTED_WAIT_MS: Final = 1000
"""Milliseconds after which a request may ask again that other requests' charges, given back since, may have refused."""


class Part(NamedTuple):
    """The charges of a request that one call can make: their indexes in the whole, they as a request, and the call."""

    indexes: Sequence[int]
    request: StoreRequest
    submit: Callable[[StoreRequest], Awaitable[StoreReply]]


class _Attempt:
    """One request on its way: the reply to each of its parts, and which parts were made."""

    def __init__(self, parts: Sequence[Part], tasks: BackgroundTasks) -> None:
        self.parts, self._tasks = parts, tasks
        self.replies: dict[int, StoreReply] = {}
        self._made: set[int] = set()

    def is_refused(self, number: int) -> bool:
        """Say whether the last reply to a part refuses it."""
        return self.parts[number].request.is_refused(self.replies[number])

    async def ask(self) -> None:
        """Ask all parts what they would decide, side by side."""
        peeks = [part.request._replace(operation=Operation.PEEK, on_orphaned=None) for part in self.parts]
        replies = await asyncio.gather(*(part.submit(peek) for part, peek in zip(self.parts, peeks, strict=True)))
        self.replies = dict(enumerate(replies))

    async def make(self, numbers: Sequence[int]) -> bool:
        """Make these parts side by side, and return whether all were made.

        Otherwise what was made so far is given back, also where a part fails or the caller is cancelled.
        """
        calls = [self._tasks.spawn(self._submit(number)) for number in numbers]
        try:
            await asyncio.wait(calls)
        except BaseException:
            self._tasks.spawn(self._give_back_after(calls))
            raise
        errors = [call.exception() for call in calls]
        if error := next(filter(None, errors), None):
            self._tasks.spawn(self._give_back())
            raise error
        if any(self.is_refused(number) for number in numbers):
            await asyncio.shield(self._tasks.spawn(self._give_back()))
            return False
        return True

    async def _submit(self, number: int) -> None:
        part = self.parts[number]
        reply = self.replies[number] = await part.submit(part.request)
        if not part.request.is_refused(reply):
            self._made.add(number)

    async def _give_back_after(self, calls: "Sequence[asyncio.Task[None]]") -> None:
        await asyncio.gather(*calls, return_exceptions=True)
        await self._give_back()

    async def _give_back(self) -> None:
        made, self._made = self._made, set()
        await asyncio.gather(*(_give_back(self.parts[number], self.replies[number]) for number in made))

    def joined(self, contested: Sequence[int] = ()) -> StoreReply:
        """Put the readings of the parts in the order of the whole; of several clocks the earliest counts."""
        readings: list[Reading] = [(0, 0, 0)] * sum(len(part.indexes) for part in self.parts)
        for number, part in enumerate(self.parts):
            found = self.replies[number].readings
            for index, reading in zip(part.indexes, _soon(found) if number in contested else found, strict=True):
                readings[index] = reading
        instants = [reply.store_ms for reply in self.replies.values()]
        return StoreReply(readings, self.replies[0].now, min(instants), is_contested=bool(contested))


def split(
    request: StoreRequest,
    place_of: Callable[[Charge], K],
    submit_at: Callable[[K, StoreRequest], Awaitable[StoreReply]],
) -> list[Part]:
    """Return the parts of a request, one for each place where its charges lie."""
    indexes: dict[K, list[int]] = {}
    for index, charge in enumerate(request.charges):
        indexes.setdefault(place_of(charge), []).append(index)
    return [
        Part(
            own,
            request._replace(charges=[request.charges[index] for index in own]),
            partial(submit_at, place),
        )
        for place, own in indexes.items()
    ]


def by_window(request: StoreRequest) -> StoreRequest:
    """Return a request that names each window of its charges by a charge of its own: those of the request come first.

    In the other windows all that is admitted has room; what is released stays counted there. One of a period that is new is left
    out: it begins with what the others hold when it is charged with them.
    """
    charges = [charge.apart[0] for charge in request.charges]
    others = [other for charge in request.charges for other in charge.others]
    if request.operation in (Operation.CHARGE, Operation.ACQUIRE):
        charges += [other._replace(limit=_unbounded(other.limit)) for other in others if not _is_new(other.limit)]
    elif request.operation == Operation.ADJUST:
        charges += others
    return request._replace(charges=charges)


def _is_new(limit: EffectiveLimit) -> bool:
    return isinstance(limit, EffectiveRate) and limit.new_until_ms > 0


def _unbounded(limit: EffectiveLimit) -> EffectiveLimit:
    return replace(limit, limit=MAX_LIMIT, shadow=True)


async def submit_parts(
    parts: Sequence[Part], tasks: BackgroundTasks, keep: Callable[[Sequence[StoreRequest]], None]
) -> StoreReply:
    """Do what is asked in all parts or, where one refuses, in none; what has to be given back is `tasks`' business.

    A correction is made in each part by itself: parts that could not be sent while others were go to `keep`, to be sent
    later.

    A charge is made where all parts have said that they have room, beginning with the part that has least: a request
    that is refused then uses up no other limit, not for a moment either. Where another request takes the last units in
    between, the refusal is contested, and says to ask again in a second.
    """
    attempt, operation = _Attempt(parts, tasks), parts[0].request.operation
    if operation in (Operation.CHARGE, Operation.ACQUIRE):
        return await _charge(attempt)
    if operation == Operation.RELEASE:
        return await _release(attempt)
    results = await asyncio.gather(*(part.submit(part.request) for part in parts), return_exceptions=True)
    if errors := [each for each in results if isinstance(each, BaseException)]:
        raise _kept(parts, results, keep) if operation in CORRECTIONS else errors[0]
    attempt.replies = {number: each for number, each in enumerate(results) if isinstance(each, StoreReply)}
    return attempt.joined()


def _kept(
    parts: Sequence[Part],
    results: Sequence[StoreReply | BaseException],
    keep: Callable[[Sequence[StoreRequest]], None],
) -> BaseException:
    """Return the error of a correction that failed in part; nothing or all of it is left to the caller to send again."""
    failed = [result for result in results if isinstance(result, BaseException)]
    pairs = zip(parts, results, strict=True)
    unsent = [part.request for part, result in pairs if isinstance(result, StorePartiallyUnavailable)]
    if len(unsent) == len(parts):
        return failed[0]
    keep(unsent)
    error = next((each for each in failed if not isinstance(each, StorePartiallyUnavailable)), failed[0])
    if isinstance(error, StorePartiallyUnavailable):
        error.is_kept = True
    return error


async def _charge(attempt: _Attempt) -> StoreReply:
    await attempt.ask()
    room = [_room(part.request, attempt.replies[number]) for number, part in enumerate(attempt.parts)]
    tightest_first = sorted(range(len(room)), key=room.__getitem__)
    # Where there is no room, only the clock of the store may have to be corrected.
    steps = [[number for number in tightest_first if room[number] < 0]]
    steps += [[number] for number in tightest_first if 0 <= room[number] < _AMPLE]
    steps.append([number for number in tightest_first if room[number] >= _AMPLE])
    for numbers in filter(None, steps):
        if not await attempt.make(numbers):
            return attempt.joined([number for number in numbers if attempt.is_refused(number) and room[number] >= 0])
    return attempt.joined()


async def _release(attempt: _Attempt) -> StoreReply:
    await attempt.ask()
    for number in range(len(attempt.parts)):
        if not await attempt.make([number]):
            break
    return attempt.joined()


def _room(request: StoreRequest, reply: StoreReply) -> int:
    """Return for how many such requests there is room, at least; -1: the request is refused."""
    pairs = zip(request.charges, reply.readings, strict=True)
    rooms = [
        -1 if wait_ms > 0 else remaining // max(1, charge.cost)
        for charge, (remaining, _, wait_ms) in pairs
        if not charge.limit.shadow
    ]
    return min(rooms, default=_AMPLE)


def _soon(readings: Sequence[Reading]) -> list[Reading]:
    return [(remaining, reset, min(wait, _CONTESTED_WAIT_MS)) for remaining, reset, wait in readings]


async def _give_back(part: Part, reply: StoreReply) -> None:
    credits_ = [_credit(charge) for charge in part.request.made(reply)]
    try:
        await part.submit(StoreRequest(credits_, Operation.ADJUST, part.request.holder, reply.store_ms))
    except StorePartiallyUnavailable as error:  # It was not sent.
        if part.request.on_orphaned is not None and not error.is_kept:
            part.request.on_orphaned(part.request, reply)
    except StoreError:
        pass  # It was sent, and is completed.


def _credit(charge: Charge) -> Charge:
    """Return what gives a charge back."""
    return charge._replace(cost=-1 if charge.limit.kind == "concurrency" else -charge.cost)
