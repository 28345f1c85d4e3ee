"""Apps that tests run under a real uvicorn; their settings come from the environment."""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ratelimit import Identity, RateLimitMiddleware, RateLimitSettings

settings = RateLimitSettings.model_validate_json(os.environ.get("RATELIMIT", "{}"))


def identify(connection: HTTPConnection) -> Identity:
    return Identity(token=connection.headers.get("x-token"), org=connection.headers.get("x-org"))


async def index(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[Route("/", index, methods=["GET", "POST"])],
    middleware=[Middleware(RateLimitMiddleware, settings=settings, identify=identify)],
)
