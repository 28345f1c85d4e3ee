"""The wire format: a batch of requests as the arguments of one script call, and the script's reply.

`scripts/decide.lua` describes both layouts.
"""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files
from itertools import islice
from typing import Final

import msgpack

from ratelimit.errors import StoreError
from ratelimit.model.effective_limit import (
    EffectiveConcurrency,
    EffectiveLimit,
    EffectivePace,
    EffectiveQuota,
    EffectiveRate,
)
from ratelimit.model.service_limit import Reading
from ratelimit.stores.messages import Operation, StoreReply, StoreRequest

_KINDS: Final = {
    "limit": (1, "sliding_window"),
    "quota": (2, "quota"),
    "concurrency": (3, "concurrency"),
    "pace": (4, "pace"),
}
"""For each kind, its number on the wire and the Lua file of its algorithm."""

_new: Final = tuple.__new__
"""Makes a named tuple without calling its constructor, which takes twice as long."""

_ALL_INT: Final = frozenset({int}).issuperset
_MAX_LIMITS: Final = 4096
"""Effective limits whose numbers are kept."""

_PERIODS: Final = {None: 0, "hour": 1, "day": 2, "week": 3, "month": 4, "year": 5}


@cache
def read_script(name: str) -> str:
    """Return the text of a script in the folder `scripts`."""
    return (files("ratelimit.stores.redis.scripts") / f"{name}.lua").read_text()


def _decide_script() -> str:
    algorithms = files("ratelimit.algorithms")
    kinds = (
        f"KINDS[{number}] = function()\n{(algorithms / f'{name}.lua').read_text()}\nend\n"
        for number, name in _KINDS.values()
    )
    before, here, after = read_script("decide").partition("local KINDS = {}")
    return before + here + "\n" + "".join(kinds) + after


SCRIPT: Final = _decide_script()
SCRIPT_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

NO_KEYS_TAG: Final = "{any}"
"""The hash tag of a call that has no keys of its own."""


def encode_command(*arguments: bytes) -> bytes:
    """Return a command as the server reads it (RESP)."""
    return b"*%d\r\n%b" % (len(arguments), b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments]))


def encode(
    requests: Sequence[StoreRequest],
    *,
    now: int | None,
    ttl_floor: int,
    name: str,
    number: int,
    names_reply_key: bool = True,
) -> list[bytes]:
    """Return the arguments of the call that decides `requests`: the number of keys, the keys, and ARGV.

    `now` and `ttl_floor` are milliseconds; with `now=None` the server reads its own clock. The reply is kept for some
    seconds under the last key, which the `name` makes unique: the same call again gets the same reply and charges
    nothing. The reply repeats `number`. Without `names_reply_key` that key is not among the keys.
    """
    keys: dict[str, int] = {}
    limits: dict[EffectiveLimit, int] = {}
    flat: list[int] = []
    limit_at, key_at, add = limits.setdefault, keys.setdefault, flat.extend
    for charges, operation, holder, charged_at, _ in requests:
        size, size_at = len(charges), len(flat) + 1
        add((operation, size) if operation < Operation.ACQUIRE else (operation, size, holder, charged_at))
        for charge in charges:
            limit, key, cost = charge
            add((limit_at(limit, len(limits) + 1), key_at(key, len(keys) + 1), cost))
            if limit.other_windows:
                for limit, key, cost in charge.others:
                    add((-limit_at(limit, len(limits) + 1), key_at(key, len(keys) + 1), cost))
                    flat[size_at] += 1
    body = (-1 if now is None else now, ttl_floor, [_numbers(each) for each in limits], flat, number)
    reply_key = sibling_key(next(iter(keys), NO_KEYS_TAG), name)
    if not names_reply_key:
        return [b"%d" % len(keys), *[key.encode() for key in keys], msgpack.packb(body), b"unnamed", reply_key.encode()]
    return [b"%d" % (len(keys) + 1), *[key.encode() for key in keys], reply_key.encode(), msgpack.packb(body)]


def sibling_key(key: str, name: str) -> str:
    """Return the key of the call `name`, in the same hash slot of a Cluster as `key`."""
    tagged, brace, _ = key.partition("}")
    return f"{tagged}}}:#call:{name}" if brace and "{" in tagged else f"{{{key}}}:#call:{name}"


@lru_cache(_MAX_LIMITS)
def _numbers(limit: EffectiveLimit) -> tuple[int, ...]:
    kind, _ = _KINDS[limit.kind]
    common = kind, int(limit.shadow), limit.limit, limit.caller_capacity
    if isinstance(limit, EffectiveRate):
        numbers = *common, limit.burst, limit.bucket_ms, limit.window_ms
        return (*numbers, limit.new_until_ms) if limit.new_until_ms else numbers
    if isinstance(limit, EffectivePace):
        return *common, limit.window, limit.max_wait_ms
    if isinstance(limit, EffectiveConcurrency):
        return *common, limit.lease_ms
    if isinstance(limit, EffectiveQuota):
        return *common, _PERIODS[limit.period]
    raise TypeError(f"{type(limit).__name__} has no numbers on the wire")


def decode(reply: object, requests: Sequence[StoreRequest], now: int, number: int) -> Iterator[StoreReply]:
    """Yield the reply to each request, as of `now` (epoch microseconds by this process's clock).

    A reply that does not belong to the call with this number raises `StoreError`.
    """
    numbers = _unpack(reply, 2 + 3 * sum(len(request.charges) for request in requests))
    answered, store_ms = numbers[:2]
    if answered != number:
        raise StoreError("the store's reply belongs to another call: does a proxy repeat replies? [RL407]")
    one = islice(numbers, 2, None)
    readings = zip(one, one, one, strict=True)
    for request in requests:
        taken: list[Reading] = list(islice(readings, len(request.charges)))
        yield _new(StoreReply, (taken, now, store_ms, False))


def _unpack(reply: object, expected: int) -> list[int]:
    numbers = msgpack.unpackb(reply) if isinstance(reply, bytes) else None
    if not isinstance(numbers, list) or len(numbers) != expected or not _ALL_INT(map(type, numbers)):
        raise StoreError("the store's reply does not fit the call: does something else write to its keys? [RL407]")
    return numbers
