"""Contract B: every teamspace has a counter of its own for each path and method, and the old error body."""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings
from ratelimit.http.identify import api_key

settings = RateLimitSettings.from_file(
    Path(__file__).with_suffix(".toml"),
    store=os.environ.get("RATELIMIT_STORE", "memory://"),
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
    return JSONResponse({"batch": "b_1"}, status_code=202)


app = Starlette(
    routes=[
        Route("/v1/jobs", jobs, methods=["GET", "POST"]),
        Route("/v1/jobs/{job_id}", job),
        Route("/v1/batches", create_batch, methods=["POST"]),
    ],
    middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=identify)],
)
