"""What a request costs, asked of the app's own functions before it is charged."""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Message, Receive, Scope

from ratelimit.policy import Policy, Quota
from ratelimit.rate import MAX_LIMIT

logger = logging.getLogger("ratelimit")


async def ask(policies: Sequence[Policy], scope: Scope, receive: Receive) -> tuple[dict[str, int], Receive]:
    """Return what the functions of these policies say the request costs, and a `receive` for the app.

    What they read of the body is kept, and the app receives it as if nobody had. A function that fails, or returns
    what is no integer ≥ 0, is logged, and the request costs 1 (at a level, which nobody would bring down again, 0):
    whether it is a good request is for the app to say.
    """
    read: list[Message] = []

    def from_the_start() -> Receive:
        heard = 0

        async def recording() -> Message:
            nonlocal heard
            if heard == len(read):
                read.append(await receive())
            heard += 1
            return read[heard - 1]

        return recording

    async def replaying() -> Message:
        return read.pop(0) if read else await receive()

    # Each function reads the body for itself, however much of it another one has read.
    http = scope["type"] == "http"
    asked = {
        policy.name: await _cost(policy, Request(scope, from_the_start()) if http else HTTPConnection(scope))
        for policy in policies
    }
    return asked, replaying if read else receive


async def _cost(policy: Policy, connection: HTTPConnection) -> int:
    function: Any = policy.cost
    usual = 0 if isinstance(policy, Quota) and policy.period is None else 1
    try:
        cost = function(connection)
        if inspect.isawaitable(cost):
            cost = await cost
        if isinstance(cost, bool) or not isinstance(cost, int) or not 0 <= cost <= MAX_LIMIT:
            logger.error("cost of policy %r: must be an integer between 0 and %d, got %r", policy.name, MAX_LIMIT, cost)
            return usual
    except ClientDisconnect:
        return usual
    except Exception:
        logger.exception("cost of policy %r: the function failed; the request costs %d", policy.name, usual)
        return usual
    return cost
