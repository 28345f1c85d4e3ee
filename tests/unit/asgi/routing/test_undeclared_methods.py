"""Which requests for an undeclared method the framework surely answers with 405."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ratelimit import Limiter, RateLimitMiddleware, RateLimitSettings
from ratelimit.asgi.routing.framework import flat_routes, visible_route
from ratelimit.asgi.routing.undeclared_methods import include_directly, leads_directly, rejects_method
from tests.unit.asgi.routing.lookups import FASTAPI, view


class Wrapper:
    """A middleware of an app's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class OwnApp(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__({**scope, "method": "POST"}, receive, send)


class OwnRouter(Router):
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def with_middleware(*kinds: Any) -> Starlette:
    return Starlette(middleware=[Middleware(kind) for kind in kinds])


def test_middlewares_that_leave_a_request_alone_are_looked_through() -> None:
    """Those of the frameworks, and other limiters, around an app, in it, or around a router."""
    limiter = RateLimitMiddleware(Starlette(), limiter=Limiter(RateLimitSettings()))
    direct = [Starlette(), FastAPI(), Router(), APIRouter(), limiter, with_middleware(GZipMiddleware)]
    assert [leads_directly(app) for app in direct] == [True] * len(direct)
    assert leads_directly(GZipMiddleware(Starlette()))


@pytest.mark.parametrize(
    "app",
    [
        Wrapper(Starlette()),
        with_middleware(Wrapper),
        with_middleware(GZipMiddleware, BaseHTTPMiddleware),
        with_middleware(AuthenticationMiddleware),
        GZipMiddleware(Wrapper(Starlette())),
        Router(middleware=[Middleware(Wrapper)]),
        OwnApp(),
        OwnRouter(),
        view,
    ],
    ids=lambda app: type(app).__name__,
)
def test_what_may_change_a_request_is_not(app: Any) -> None:
    """A middleware, an app or a router of the app's own may answer otherwise; so does a check of credentials."""
    assert not leads_directly(app)


class OwnInclusion(APIRouter):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def test_an_included_router_of_the_apps_own_class_may_serve_anything() -> None:
    """FastAPI asks it, and not its routes."""
    assert include_directly([])
    assert not include_directly([OwnInclusion()])
    if FASTAPI >= (0, 137):
        assert include_directly([APIRouter()])


def test_a_route_that_declares_methods_rejects_the_others() -> None:
    """Of Starlette and of FastAPI, included or not."""
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/x", lambda: "x")
    router.add_route("/y", view)
    app.include_router(router, prefix="/v1")
    app.router.routes.append(Route("/z", view))
    routes = [route for route in flat_routes(app.routes) if visible_route(route).path[-2:] in ("/x", "/y", "/z")]
    assert [rejects_method(route, "POST", Match.PARTIAL) for route in routes] == [True] * 3


class OwnHandle(Route):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class OwnAPIHandle(APIRoute):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class OwnMatches(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.PARTIAL, {}


def test_a_route_class_of_the_apps_own_may_serve_them() -> None:
    """One with its own `handle` or `matches`, and an object that is no route of the frameworks at all."""
    app, router = FastAPI(), APIRouter(route_class=OwnAPIHandle)
    router.add_api_route("/x", lambda: "x")
    app.include_router(router)
    included = [route for route in flat_routes(app.routes) if getattr(route, "path", "") == "/x"]
    for route in (OwnHandle("/x", view), OwnMatches("/x", view), *included):
        assert not rejects_method(route, "POST", Match.PARTIAL)
    patched: Any = Route("/x", view)
    patched.handle = view
    assert not rejects_method(patched, "POST", Match.PARTIAL)


class Items(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("items")


class OwnDispatch(Items):
    async def dispatch(self) -> None: ...


class OwnRejection(Items):
    async def method_not_allowed(self, request: Request) -> Response:
        return PlainTextResponse("served after all")


class OwnAttributes(Items):
    def __getattr__(self, name: str) -> Any:
        return self.get


class OwnInit(Items):
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.post = self.get


def test_a_class_based_endpoint_rejects_methods_without_a_handler() -> None:
    """Whatever their case, HEAD only where it has neither `head` nor `get`; names of its own attributes are no methods."""
    route = Route("/items", Items)
    methods = ["GET", "HEAD", "get", "POST", "post", "OPTIONS", "BREW", "SCOPE", "DISPATCH", "_ALLOWED_METHODS"]
    rejected = [method for method in methods if rejects_method(route, method, Match.FULL)]
    assert rejected == ["POST", "post", "OPTIONS", "BREW"]


@pytest.mark.parametrize(
    "route",
    [
        *(Route("/x", kind) for kind in (OwnDispatch, OwnRejection, OwnAttributes, OwnInit)),
        Route("/x", Items, middleware=[Middleware(Wrapper)]),
        Route("/x", Wrapper(Starlette())),
        Route("/x", view),
        Mount("/x", app=Starlette()),
    ],
    ids=lambda route: type(route).__name__,
)
def test_an_endpoint_that_redefines_this_may_serve_them(route: Any) -> None:
    """So may an ASGI app in its place, a function, and what a middleware of the route makes of the method."""
    assert not rejects_method(route, "POST", Match.FULL)
