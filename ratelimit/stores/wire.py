"""The wire: a batch of requests as one msgpack value to the script, and its reply back."""

from collections.abc import Iterator, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final, NamedTuple

import msgpack

from ratelimit.decision import Charge, ServiceLimit, Terms, service_limit
from ratelimit.errors import StoreError

_KINDS: Final = {"limit": (1, "sliding_window")}
"""How each kind of policy is called in a script call, and the file that knows it."""


def _script() -> str:
    folder = files("ratelimit.algorithms")
    kinds = (
        f"KINDS[{number}] = (function()\n{(folder / f'{name}.lua').read_text()}\nend)()\n"
        for number, name in _KINDS.values()
    )
    return "local KINDS = {}\n" + "".join(kinds) + (folder / "charge.lua").read_text()


SCRIPT: Final = _script()
SCRIPT_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Request(NamedTuple):
    """The charges of one request, to be made all together or, with `peek`, not at all."""

    charges: Sequence[Charge]
    peek: bool = False


def encode(requests: Sequence[Request], *, now: int | None, ttl_floor: int) -> tuple[list[str], bytes]:
    """Return KEYS and ARGV[1] of the call that decides `requests`; `now` and `ttl_floor` in milliseconds.

    `now=None` lets the server read its own clock. The layout stands in `charge.lua`.
    """
    keys: dict[str, int] = {}
    terms: dict[Terms, int] = {}
    flat: list[int] = []
    for charges, peek in requests:
        flat += (1 if peek else 0, len(charges))
        for charge in charges:
            flat += (
                terms.setdefault(charge.terms, len(terms) + 1),
                keys.setdefault(charge.key, len(keys) + 1),
                charge.cost,
            )
    head = (-1 if now is None else now, ttl_floor, [_numbers(each) for each in terms], flat)
    return list(keys), msgpack.packb(head)


def _numbers(terms: Terms) -> tuple[int, ...]:
    kind, _ = _KINDS[terms.kind]
    return kind, terms.limit, terms.allowance, terms.slot, terms.span, int(terms.shadow)


def decode(reply: object, requests: Sequence[Request], now: int) -> Iterator[list[ServiceLimit]]:
    """Yield the service limits of each request, as of `now` (epoch microseconds by this process's clock)."""
    numbers = _unpack(reply, 3 * sum(len(request.charges) for request in requests))
    at = 0
    for request in requests:
        limits = []
        for charge in request.charges:
            limits.append(service_limit(charge, numbers[at], numbers[at + 1], numbers[at + 2], now))
            at += 3
        yield limits


def _unpack(reply: object, expected: int) -> list[int]:
    numbers = msgpack.unpackb(reply) if isinstance(reply, bytes) else None
    if not isinstance(numbers, list) or len(numbers) != expected:
        raise StoreError("the store's reply does not fit what was asked: is something else writing to it?")
    return numbers
