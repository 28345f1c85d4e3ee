"""Request costs: what the app's own functions say that a request costs, before it is charged."""

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.requests import ClientDisconnect, HTTPConnection

from ratelimit._utils.validation import is_int_between
from ratelimit.asgi.callers import place_of
from ratelimit.asgi.request_reader import RequestReader
from ratelimit.config.policies import Policy, Quota
from ratelimit.model.rate import MAX_LIMIT

logger = logging.getLogger("ratelimit")

_MAX_SHOWN: Final = 50


def _ignore(where: str) -> None:
    """Count no error."""


async def evaluate_costs(
    policies: Sequence[Policy], reader: RequestReader, on_error: Callable[[str], None] = _ignore
) -> dict[str, int] | None:
    """Return the costs that the functions of these policies tell, by policy; `None` without policies.

    Each function reads the body from its start, however much of it another one has read. A float is rounded up. A
    function that fails, or returns no number ≥ 0, is logged, and the request costs 1 (at a level, which nothing would
    bring down again, 0): whether the request is valid is for the app to decide.
    """
    return (
        {policy.name: await _cost(policy, reader.connection(), on_error) for policy in policies} if policies else None
    )


async def _cost(policy: Policy, connection: HTTPConnection, on_error: Callable[[str], None]) -> int:
    function: Any = policy.cost
    default = 0 if isinstance(policy, Quota) and policy.period is None else 1
    try:
        returned = function(connection)
        if inspect.isawaitable(returned):
            returned = await returned
        cost = math.ceil(returned) if isinstance(returned, float) and 0 <= returned <= MAX_LIMIT else returned
        if not is_int_between(cost, 0, MAX_LIMIT):
            on_error("cost")
            logger.error(
                "cost of policy %r: must be a number between 0 and %d, got %s [RL502]",
                policy.name,
                MAX_LIMIT,
                repr(returned)[:_MAX_SHOWN] if isinstance(returned, (int, float)) else type(returned).__name__,
            )
            return default
    except ClientDisconnect:
        return default
    except Exception as error:  # noqa: BLE001 - logged, without its text, which may hold a credential
        on_error("cost")
        logger.error(  # noqa: TRY400
            "cost of policy %r: the function failed (%s); the request costs %d [RL502]",
            policy.name,
            place_of(error),
            default,
        )
        return default
    return cost
