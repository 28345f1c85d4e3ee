"""The wire: a batch of requests as one msgpack value to the script, and its reply back."""

from collections.abc import Iterator, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

import msgpack

from ratelimit.charge import Terms
from ratelimit.errors import StoreError
from ratelimit.stores.base import Answer, Op, Request

_KINDS: Final = {
    "limit": (1, "sliding_window"),
    "quota": (2, "quota"),
    "concurrency": (3, "concurrency"),
    "pace": (4, "pace"),
}
"""How each kind is called in a script call, and the file that knows it."""

_ALL_INT: Final = frozenset({int}).issuperset
_PERIODS: Final = {None: 0, "hour": 1, "day": 2, "week": 3, "month": 4, "year": 5}


def _script() -> str:
    folder = files("ratelimit.algorithms")
    kinds = (
        f"KINDS[{number}] = function()\n{(folder / f'{name}.lua').read_text()}\nend\n"
        for number, name in _KINDS.values()
    )
    return "local KINDS = {}\n" + "".join(kinds) + (folder / "charge.lua").read_text()


SCRIPT: Final = _script()
SCRIPT_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


ANY: Final = "{any}"
"""What stands for the keys of a call that has none."""


def pack(*arguments: bytes) -> bytes:
    """Return a command as the server reads it (RESP)."""
    return b"*%d\r\n%b" % (len(arguments), b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments]))


def encode(requests: Sequence[Request], *, now: int | None, ttl_floor: int, name: str, number: int) -> list[bytes]:
    """Return the arguments of the call that decides `requests`: how many keys there are, these, and ARGV[1].

    `now` and `ttl_floor` are milliseconds. The reply is kept for some seconds under the last key, which the call's
    `name` makes its own: the same call again gets the same reply, and does nothing. `number` comes back with it.

    `now=None` lets the server read its own clock. The layout stands in `charge.lua`.
    """
    keys: dict[str, int] = {}
    terms: dict[Terms, int] = {}
    flat: list[int] = []
    for charges, op, holder, at, _ in requests:
        flat += (op, len(charges)) if op < Op.HOLD else (op, len(charges), holder, at)
        for charge in charges:
            flat += (
                terms.setdefault(charge.terms, len(terms) + 1),
                keys.setdefault(charge.key, len(keys) + 1),
                charge.cost,
            )
    head = (-1 if now is None else now, ttl_floor, [_numbers(each) for each in terms], flat, number)
    kept = beside(next(iter(keys), ANY), name)
    return [b"%d" % (len(keys) + 1), *[key.encode() for key in keys], kept.encode(), msgpack.packb(head)]


def beside(key: str, name: str) -> str:
    """Return a key of that name in the same slot of a Cluster as `key`."""
    tagged, brace, _ = key.partition("}")
    return f"{tagged}}}:#call:{name}" if brace and "{" in tagged else f"{{{key}}}:#call:{name}"


def _numbers(terms: Terms) -> tuple[int, ...]:
    kind, _ = _KINDS[terms.kind]
    common = kind, int(terms.shadow), terms.limit, terms.cap
    if terms.kind == "limit":
        return *common, terms.allowance, terms.slot, terms.span
    if terms.kind == "pace":
        return *common, terms.window, terms.patience
    return *common, _PERIODS[terms.period] if terms.kind == "quota" else terms.lease


def decode(reply: object, requests: Sequence[Request], now: int, number: int) -> Iterator[Answer]:
    """Yield the answer to each request, as of `now` (epoch microseconds by this process's clock).

    A reply that is not that of the call with this number raises `StoreError`.
    """
    numbers = _unpack(reply, 2 + 3 * sum(len(request.charges) for request in requests))
    if numbers[0] != number:
        raise StoreError("the store's reply is that of another call: is something between repeating them?")
    stamp, at = numbers[1], 2
    for request in requests:
        end = at + 3 * len(request.charges)
        yield Answer(list(zip(*[iter(numbers[at:end])] * 3, strict=True)), now, stamp)
        at = end


def _unpack(reply: object, expected: int) -> list[int]:
    numbers = msgpack.unpackb(reply) if isinstance(reply, bytes) else None
    if not isinstance(numbers, list) or len(numbers) != expected or not _ALL_INT(map(type, numbers)):
        raise StoreError("the store's reply does not fit what was asked: is something else writing to it?")
    return numbers
