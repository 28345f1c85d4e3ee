"""Apps that tests run under a real uvicorn; their settings come from the environment."""

import asyncio
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings

settings = RateLimitSettings.model_validate_json(os.environ.get("RATELIMIT", "{}"))


def identify(connection: HTTPConnection) -> Identity:
    return Identity(token=connection.headers.get("x-token"), org=connection.headers.get("x-org"))


async def index(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def stream(request: Request) -> Response:
    """Send a chunk, and then nothing for as long as the client stays."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


app = Starlette(
    routes=[Route("/", index, methods=["GET", "POST"]), Route("/stream", stream)],
    middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=identify)],
)
