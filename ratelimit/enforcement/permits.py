"""Permits that are held for a block of code."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ratelimit.enforcement.decision import Decision
from ratelimit.errors import LimitExceeded


@asynccontextmanager
async def held_permit(decision: Decision, policy: str) -> AsyncIterator[None]:
    """Renew the permit of a decision until the block ends, and release it then; raises `LimitExceeded` for a refusal."""
    if not decision.allowed:
        if decision.is_blocked:
            raise LimitExceeded("the caller is blocked [RL314]", decision)
        retry = f"; try again in {decision.retry_after:g} s" if math.isfinite(decision.retry_after) else ""
        raise LimitExceeded(f"no permit of {policy!r} is free{retry} [RL314]", decision)
    try:
        for settlement in decision.settlements:
            settlement.start_renewal()
        yield
    finally:
        await decision.release()
