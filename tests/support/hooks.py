"""A receiver of webhooks that records when each arrived, by its own event loop's time."""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

arrived: list[tuple[str, float]] = []


async def receive(request: Request) -> Response:
    arrived.append((request.url.path, asyncio.get_running_loop().time()))
    return Response(status_code=204)


async def list_arrived(request: Request) -> Response:
    return JSONResponse(arrived)


app = Starlette(routes=[Route("/hooks/{sender}/{number}", receive, methods=["POST"]), Route("/arrived", list_arrived)])
