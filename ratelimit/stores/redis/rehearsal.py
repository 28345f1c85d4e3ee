"""Rehearsed charges: what the server would reply, without a change to any counter."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from ratelimit.clock import system_clock
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import Reading
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest
from ratelimit.stores.redis.codec import SCRIPT, decode, encode

_NAME: Final = "rehearsal"
"""The name of the call: nothing is kept under it."""

Run = Callable[..., Awaitable[Any]]
"""Runs one Redis command."""


async def rehearse(
    run: Run, request: StoreRequest, *, now: int | None, server_of: Callable[[Charge], int]
) -> StoreReply:
    """Return what the store would reply to a request, asked for in a call for each part that `server_of` tells apart.

    `now` is in epoch microseconds; with `None` the server reads its own clock. Where one part refuses, nothing would be charged
    in the others. Raises `StoreError`.
    """
    parts: dict[int, list[int]] = {}
    for index, charge in enumerate(request.charges):
        parts.setdefault(server_of(charge), []).append(index)
    readings = dict[int, Reading]()
    replies = {part: await _ask(run, _part(request, indexes), now) for part, indexes in parts.items()}
    refused = {part for part, reply in replies.items() if _part(request, parts[part]).is_refused(reply)}
    for part, indexes in parts.items():
        reply = replies[part]
        if refused and part not in refused:
            reply = await _ask(run, _part(request, indexes)._replace(operation=Operation.PEEK), now)
        readings.update(zip(indexes, reply.readings, strict=True))
    last = next(iter(replies.values()), StoreReply((), system_clock() if now is None else now, 0))
    return last._replace(readings=[readings[index] for index in range(len(request.charges))])


def _part(request: StoreRequest, indexes: list[int]) -> StoreRequest:
    return request._replace(charges=[request.charges[index] for index in indexes])


async def _ask(run: Run, request: StoreRequest, now: int | None) -> StoreReply:
    ms = None if now is None else now // 1000
    arguments = encode([request], now=ms, ttl_floor=0, name=_NAME, number=0)
    found = await run("EVAL", SCRIPT, *arguments, b"rehearse")
    return next(decode(found, [request], system_clock() if now is None else now, 0))
