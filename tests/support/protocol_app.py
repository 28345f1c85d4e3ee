"""An app with a WebSocket, a stream of events, large answers and failures; other middlewares are around the limiter, or inside."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from ratelimit import Identity, Limit, RateLimitMiddleware, RateLimitSettings

SETTINGS = RateLimitSettings(limits=[Limit(name="token", rate="2/hour", per=["token"])])


def identify(connection: HTTPConnection) -> Identity:
    return Identity(token=connection.headers.get("x-token"))


async def big(request: Request) -> Response:
    return PlainTextResponse("all work and no play " * 500)


async def upload(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def events(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(lines(), media_type="text/event-stream")


async def fail(request: Request) -> Response:
    raise RuntimeError


async def teapot(request: Request) -> Response:
    raise HTTPException(418)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


async def mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-marked"] = "yes"
    return response


own = Middleware(RateLimitMiddleware, settings=SETTINGS, identify=identify)
others = [Middleware(GZipMiddleware, minimum_size=1000), Middleware(BaseHTTPMiddleware, dispatch=mark)]
layers = {"outside": [*others, own], "inside": [own, *others], "none": [own], "whole": []}
inner = Starlette(
    routes=[
        Route("/big", big),
        Route("/upload", upload, methods=["POST"]),
        Route("/events", events),
        Route("/fail", fail),
        Route("/teapot", teapot),
        WebSocketRoute("/echo", echo),
    ],
    middleware=layers[os.environ.get("LAYERS", "none")],
)
app: Any = inner
if os.environ.get("LAYERS") == "whole":
    app = RateLimitMiddleware.wrap(inner, settings=SETTINGS, identify=identify)
