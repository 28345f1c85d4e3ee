"""Contract B: every teamspace has a counter of its own for each path and method, and the old error body.

Batches run behind their response and are bounded by organization: how many are created, run at once, and how many items
wait in them.
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
from ratelimit.http.identify import api_key

ITEM_SECONDS = float(os.environ.get("ITEM_SECONDS", "0.01"))


async def items_of(request: Request) -> int:
    """Tell how many items a batch would put into the queue; the endpoint reads the same body again."""
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
            status=429,  # It drains by itself: trying again helps.
            refund_on=[400, 500],
            detail="Too many items of this organization are waiting. Wait until some are done.",
        )
    ],
)


async def identify(connection: HTTPConnection) -> Identity:
    """Take the teamspace from a header; a real app takes it from the key's record, which it may await here."""
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


async def run_batch(limiter: Limiter, who: Identity, items: int) -> None:
    """Work on one item after the other; each that is done makes room in the queue.

    While the store is away nobody can say whether it heard; what is done is told it with the next item that is.
    """
    done = 0
    for _ in range(items):
        await asyncio.sleep(ITEM_SECONDS)
        done += 1
        with suppress(StoreError):
            await limiter.release("batch-items", who, done)
            done = 0
    while done:
        await asyncio.sleep(1)
        with suppress(StoreError):
            await limiter.release("batch-items", who, done)
            done = 0


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
