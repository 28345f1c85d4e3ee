"""What the tests of routing share: endpoints by path, and the policies that hold there."""

from typing import Any

import fastapi
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from ratelimit import RateLimitSettings
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.asgi.routing.route_index import NOT_ALLOWED
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import PolicyResolver

FASTAPI = tuple(int(part) for part in fastapi.__version__.split(".")[:2])

live_includes = pytest.mark.skipif(FASTAPI < (0, 137), reason="this FastAPI copies the routes of an included router")
"""For tests of routers that stay visible in the app that includes them."""


async def view(request: Request) -> Response:
    return PlainTextResponse("ok")


def new_view() -> Any:
    """Return another view, which a test may decorate."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse("ok")

    return answer


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()


def scope_of(app: Any, path: str, method: str = "GET", **more: Any) -> Scope:
    scope = {"type": "http", "method": method, "path": path, "headers": [], "app": app, **more}
    if scope["type"] == "websocket":
        del scope["method"]
    return scope


def matcher_of(app: Any, **settings: Any) -> EndpointMatcher:
    """Return a new matcher of an app under these settings."""
    return EndpointMatcher(app, PolicyResolver(RateLimitSettings.model_validate(settings)))


NOT_COUNTED = NOT_ALLOWED[0]
"""The endpoint of a request that the framework answers with 405."""


def find(app: Any, path: str, method: str = "GET", **more: Any) -> Endpoint:
    """Return the endpoint that a new matcher finds for a path."""
    return matcher_of(app).find(scope_of(app, path, method, **more))


def label(app: Any, path: str, method: str = "GET", **more: Any) -> str:
    return find(app, path, method, **more).label


def limited_names(app: Any, path: str, method: str = "GET", **settings: Any) -> list[str]:
    """Return the names of the policies that hold for a path."""
    resolver = PolicyResolver(RateLimitSettings.model_validate(settings))
    found = EndpointMatcher(app, resolver).find(scope_of(app, path, method))
    return [policy.name for policy in resolver.policies_at(found).policies]
