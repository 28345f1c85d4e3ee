"""Contract B: each teamspace has one counter for each path and method, and errors have the legacy body.

Batches run after their response. Limits of the organization bound how many are created, how many run at once, and how
many items wait in them.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ratelimit import Identity, Limiter, Quota, RateLimitMiddleware, RateLimitSettings, StoreError
from ratelimit.asgi.identify import api_key

ITEM_SECONDS = float(os.environ.get("ITEM_SECONDS", "0.01"))


async def items_of(request: Request) -> int:
    """Return the number of items that a batch would queue; the endpoint can still read the body."""
    return len((await request.json())["items"])


settings = RateLimitSettings.from_file(
    Path(__file__).with_suffix(".toml"),
    store=os.environ.get("RATELIMIT_STORE", "memory://"),
    quotas=[
        Quota(
            name="batch-items",
            limit=1000,
            unit="items",
            per="org",
            methods="POST",
            paths="/v1/batches",
            cost=items_of,
            status=429,  # The queue drains by itself, so a retry may succeed.
            refund_on=[400, 500],
            detail="Too many items of this organization are waiting. Wait until some are done.",
        )
    ],
)


async def identify(connection: HTTPConnection) -> Identity:
    """Read the teamspace from a header; a real app reads it from the key's record, and may await that here."""
    teamspace = connection.headers.get("x-teamspace", "")
    return Identity(token=api_key(connection), org=teamspace.partition("-")[0], dimensions={"teamspace": teamspace})


async def jobs(request: Request) -> Response:
    return JSONResponse({"jobs": []})


async def job(request: Request) -> Response:
    return JSONResponse({"job": request.path_params["job_id"]})


async def create_batch(request: Request) -> Response:
    try:
        items = (await request.json())["items"]
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": 'a batch is {"items": […]}'}, 400)
    run = BackgroundTask(run_batch, request.app.state.limiter, await identify(request), len(items))
    return JSONResponse({"batch": uuid4().hex, "items": len(items)}, 202, background=run)


async def run_batch(limiter: Limiter, caller: Identity, items: int) -> None:
    """Process the items one after the other, and release the unit of each one in the quota.

    While the store is unavailable, units are kept, and released together with those of the next item.
    """
    unreleased = 0
    for _ in range(items):
        await asyncio.sleep(ITEM_SECONDS)
        unreleased += 1
        with suppress(StoreError):
            await limiter.release("batch-items", caller, unreleased)
            unreleased = 0
    while unreleased:
        await asyncio.sleep(1)
        with suppress(StoreError):
            await limiter.release("batch-items", caller, unreleased)
            unreleased = 0


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with app.state.limiter:
        yield


limiter = Limiter(settings)
app = Starlette(
    routes=[
        Route("/v1/jobs", jobs, methods=["GET", "POST"]),
        Route("/v1/jobs/{job_id}", job),
        Route("/v1/batches", create_batch, methods=["POST"]),
    ],
    middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=identify)],
    lifespan=lifespan,
)
app.state.limiter = limiter
