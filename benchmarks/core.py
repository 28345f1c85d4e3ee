"""The cases of the hot-path suite: each is one operation of the limiter's core, ready to be repeated.

`make bench-core` times them (pytest-benchmark) and counts their instructions (valgrind), which no busy machine changes.
"""

from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final

import msgpack

from benchmarks.middleware_memory import LIMITS, NOTHING_LEFT, SCOPE, app, receive, send
from ratelimit import Decision, Identity, Limiter, RateLimitSettings, ResponseStyle
from ratelimit.charge import Charge
from ratelimit.http.headers import admitted
from ratelimit.refusals import Refusals
from ratelimit.stores import Request, wire

Case = Callable[[], object]

NOW: Final = 1_700_000_000_000_000
IETF: Final = ResponseStyle(headers=["x-ratelimit", "ietf"])
PRESENT: Final = [(b"content-length", b"2"), (b"content-type", b"text/plain; charset=utf-8")]
BATCH: Final = 32


def drive(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run to its end what never has to wait."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


async def cases() -> dict[str, Case]:
    """Return every case, with all that it needs made and warm; they run where an event loop does."""
    limiter = Limiter(RateLimitSettings(limits=LIMITS), clock=lambda: NOW)
    await limiter.start()
    who, numbers = Identity(token="secret", org="acme"), count()
    apps: list[Any] = [app(LIMITS), app(NOTHING_LEFT), app()]
    served, refusing, bare = apps
    for each in apps:
        await each(dict(SCOPE), receive, send)
    rules = limiter.plan.rules(limiter.plan.endpoint("GET", "/x"))
    charges, refusals, spent = rules.charges(who), *await _refused()
    batch = [Request(rules.charges(Identity(token=f"t{n}", org="acme"))) for n in range(BATCH)]
    reply = msgpack.packb([1, NOW // 1000, *[999_999, 60_000, -30] * len(LIMITS) * BATCH])
    told = [(999_999, 60_000, -30)] * len(charges)
    return {
        "the app alone": lambda: drive(bare(dict(SCOPE), receive, send)),
        "the app with three limits": lambda: drive(served(dict(SCOPE), receive, send)),
        "the app, refusing": lambda: drive(refusing(dict(SCOPE), receive, send)),
        "a check of three limits": lambda: drive(limiter.check(who, endpoint="/x")),
        "charges of a caller who is known": lambda: rules.charges(who),
        "charges of a new caller": lambda: rules.charges(Identity(token=f"new{next(numbers)}", org="acme")),
        "a decision of three limits": lambda: Decision.told(charges, told, NOW).binding,
        "headers": lambda: admitted(Decision.told(charges, told, NOW), IETF, 200, PRESENT),
        "a refusal that is remembered": lambda: refusals.known(spent, NOW + 1000),
        f"a batch of {BATCH}, packed": lambda: wire.pack(
            *wire.encode(batch, now=None, ttl_floor=0, name="name", number=1)
        ),
        f"a batch of {BATCH}, read": lambda: list(wire.decode(reply, batch, NOW, 1)),
    }


async def _refused() -> tuple[Refusals, list[Charge]]:
    limiter = Limiter(RateLimitSettings(limits=NOTHING_LEFT), clock=lambda: NOW)
    charges = list(limiter.plan.rules(limiter.plan.endpoint("GET", "/x")).charges(Identity(token="secret")))
    for _ in range(2):
        decision = await limiter.check(Identity(token="secret"), endpoint="/x")
    refusals = Refusals()
    refusals.note(charges, decision.limits, NOW)
    return refusals, charges
