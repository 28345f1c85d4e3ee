"""The endpoint matcher: finds the endpoint of a request before the app routes it, and caches it."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from ratelimit import RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.asgi.routing.endpoint_matcher import MAX_CACHED_PATHS
from tests.unit.asgi.routing.lookups import (
    NOT_COUNTED,
    label,
    limited_names,
    live_includes,
    matcher_of,
    new_view,
    scope_of,
    view,
)


def watched() -> tuple[list[str], type[RateLimitMiddleware]]:
    """Return a list, and a middleware class that appends the label of each request to it."""
    seen: list[str] = []

    class Spy(RateLimitMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                seen.append(self.endpoint_matcher.find(scope).label)
            await super().__call__(scope, receive, send)

    return seen, Spy


def test_unknown_paths_are_one_endpoint() -> None:
    """All paths that no route matches share one endpoint, whatever their path and method."""
    app = Starlette(routes=[Route("/known", view)])
    labels = {label(app, f"/nothing/{n}", method) for n in range(9) for method in ("GET", "POST", "BREW")}
    assert labels == {"*"}


def test_root_path_is_not_part_of_the_endpoint() -> None:
    """The template is the same behind a proxy that strips a prefix and behind one that keeps it."""
    app = Starlette(routes=[Route("/runs/{id}", view), Mount("/sub", routes=[Route("/x", view)])])
    assert label(app, "/api/runs/1", root_path="/api") == "GET /runs/{id}"
    assert label(app, "/runs/1", root_path="/api") == "GET /runs/{id}"
    assert label(app, "/api/sub/x", root_path="/api") == "GET /sub/x"


def test_routes_that_are_added_later_are_found() -> None:
    """The matcher reads the routes again when their number has changed."""
    app = Starlette(routes=[Route("/a", view)])
    matcher = matcher_of(app)
    assert matcher.find(scope_of(app, "/b")).label == "*"
    app.router.routes.append(Route("/b", view))
    assert matcher.find(scope_of(app, "/b")).label == "GET /b"


@live_includes
def test_routes_that_are_added_to_included_and_mounted_routers_are_found() -> None:
    """The matcher also notices routes that are added below the top."""
    router, sub = APIRouter(), Starlette(routes=[Route("/one", view)])
    router.add_api_route("/one", lambda: "one")
    app = FastAPI()
    app.include_router(router, prefix="/r")
    app.mount("/m", sub)
    matcher = matcher_of(app)
    assert [matcher.find(scope_of(app, path)).label for path in ("/r/two", "/m/two")] == ["*", "*"]
    router.add_api_route("/two", lambda: "two")
    sub.router.routes.append(Route("/two", view))
    assert [matcher.find(scope_of(app, path)).label for path in ("/r/two", "/m/two")] == ["GET /r/two", "GET /m/two"]


def test_a_late_route_that_cannot_work_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """After the start, a wrong decorator is logged, and the routes that were read before keep their limits."""
    app = Starlette(routes=[Route("/ok", view)])
    matcher = matcher_of(app)
    matcher.read_routes()
    app.router.routes.append(Route("/late", limit("1/minute", per="tennant")(new_view())))
    assert [matcher.find(scope_of(app, path)).label for path in ("/ok", "/late", "/ok")] == [
        "GET /ok",
        "*",
        "GET /ok",
    ]
    assert [message[:22] for message in caplog.messages] == ["routes were added whos"]


def test_cached_paths_have_a_bound() -> None:
    """A flood of made-up paths neither grows the cache beyond its bound nor changes what is found."""
    app = Starlette(routes=[Route("/runs/{id}", view)])
    matcher = matcher_of(app)
    found = {matcher.find(scope_of(app, f"/runs/{n}")).label for n in range(10_000)}
    assert found == {"GET /runs/{id}"}
    assert len(matcher.cache) <= MAX_CACHED_PATHS


def test_long_methods_are_not_cached() -> None:
    """Callers choose methods, but not how much memory they take."""
    app = Starlette(routes=[Route("/x", view)])
    matcher = matcher_of(app)
    matcher.find(scope_of(app, "/x", "A" * 10_000))
    assert matcher.cache == {}


def test_long_paths_are_not_cached() -> None:
    """Callers choose paths, but not how much memory they take."""
    app = Starlette(routes=[Route("/f/{rest:path}", view)])
    matcher = matcher_of(app)
    for path in ("/f/" + "x" * 10_000, "/unknown"):
        matcher.find(scope_of(app, path))
    assert matcher.cache == {}


@pytest.mark.parametrize("written", ["/runs/{id:int}", "/runs/{id}", "/runs/{id}/", "/runs/*", "/runs/{id:int}/"])
@pytest.mark.parametrize("route", ["/runs/{id:int}", "/runs/{id}/"])
def test_settings_name_a_path_as_the_route_does_or_without_convertors(written: str, route: str) -> None:
    """Convertors and a last slash make no difference, in limits and in exemptions."""
    app = Starlette(routes=[Route(route, view)])
    limits = [{"name": "p", "rate": "1/minute", "paths": [written]}]
    assert limited_names(app, "/runs/1", limits=limits) == ["p"]
    assert limited_names(app, "/runs/1", limits=limits, exempt=[written]) == []


def test_overlapping_patterns_all_hold_where_there_are_no_routes() -> None:
    """For a plain ASGI app, every pattern that matches the path applies."""
    limits = [
        {"name": "wide", "rate": "100/hour", "paths": ["/api/*"]},
        {"name": "narrow", "rate": "1/hour", "paths": ["/api/exports/*"]},
        {"name": "other", "rate": "1/hour", "paths": ["/other"]},
    ]

    async def plain_app(scope: Scope, receive: Receive, send: Send) -> None: ...

    assert limited_names(plain_app, "/api/exports/full", limits=limits) == ["wide", "narrow"]
    assert limited_names(plain_app, "/api/x", limits=limits) == ["wide"]
    assert limited_names(plain_app, "/api/x", limits=limits, exempt=["/api/x"]) == []
    assert limited_names(plain_app, "/nothing", limits=limits) == []


def test_a_middleware_below_a_mount_sees_full_templates() -> None:
    """Two mounts of the same routes, each with a limiter inside, do not share counters."""
    seen, spy = watched()
    inside = [Middleware(spy, settings=RateLimitSettings())]
    routes = [Route("/list", view)]
    app = Starlette(
        routes=[Mount("/users", routes=routes, middleware=inside), Mount("/orders", routes=routes, middleware=inside)]
    )
    client = TestClient(app)
    client.get("/users/list")
    client.get("/orders/list")
    assert seen == ["GET /users/list", "GET /orders/list"]


def test_mounted_apps_with_limiters_of_their_own_are_apart() -> None:
    """The same app mounted in two places has two labels, with the parameters of its mounts by name."""
    seen, spy = watched()
    sub = FastAPI()
    sub.get("/list")(lambda: "list")
    sub.add_middleware(spy, settings=RateLimitSettings())
    outer = FastAPI()
    outer.mount("/deep", sub)
    outer.get("/x")(limit("1/minute", per="tennant")(lambda: "x"))  # The limiter inside ignores it.
    routes = [Mount("/users", app=sub), Mount("/orgs/{org:int}/v{n:int}", app=sub), Mount("/outer", app=outer)]
    client = TestClient(Starlette(routes=routes))
    for path in ("/users/list", "/orgs/7/v1/list", "/orgs/007/v2/list", "/orgs/1/v001/list", "/outer/deep/list"):
        assert client.get(path).status_code == 200
    assert seen == ["GET /users/list", *["GET /orgs/{org}/v{n}/list"] * 3, "GET /outer/deep/list"]


def test_settings_of_a_mounted_app_name_paths_with_or_without_the_mount() -> None:
    """An app with settings of its own may name a path as it does itself, or as the whole app does."""

    async def served(request: Request) -> Response:
        return PlainTextResponse("ok")

    def answers(**limited: Any) -> list[int]:
        settings = RateLimitSettings.model_validate({"limits": [{"name": "p", "rate": "1/minute"}], **limited})
        inside = Starlette(routes=[Route("/x", served), Route("/", served)])
        inside.add_middleware(RateLimitMiddleware, settings=settings)
        with TestClient(Starlette(routes=[Mount("/sub", app=inside)])) as client:
            return [client.get(path).status_code for path in ("/sub/x", "/sub/x", "/sub/")]

    assert answers() == [200, 429, 429]
    assert answers(exempt=["/x"]) == answers(exempt=["GET /sub/x"]) == [200, 200, 200]
    assert answers(limits=[{"name": "p", "rate": "1/minute", "paths": ["/sub/*"]}]) == [200, 429, 200]


def test_invisible_routes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A middleware without an attribute `app` hides the routes; the log says so, once."""
    app = Starlette(routes=[Route("/x", view)])

    async def closed(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    matcher = matcher_of(closed)
    for _ in range(3):
        assert matcher.find(scope_of(None, "/x")).label == "*"
    assert [message[:34] for message in caplog.messages] == ["RateLimitMiddleware sees no routes"]


@live_includes
def test_a_method_that_is_added_below_does_not_stay_uncounted() -> None:
    """What is not allowed is not cached: a route for it may be added to an included or mounted router at any time."""
    router, sub, app = APIRouter(), Starlette(routes=[Route("/x", view)]), FastAPI()
    router.add_api_route("/x", lambda: "x")
    app.include_router(router, prefix="/r")
    app.mount("/m", sub)
    matcher = matcher_of(app)
    assert [matcher.find(scope_of(app, path, "POST")) for path in ("/r/x", "/m/x")] == [NOT_COUNTED] * 2
    router.add_api_route("/x", lambda: "x", methods=["POST"])
    sub.router.routes.append(Route("/x", view, methods=["POST"]))
    assert [matcher.find(scope_of(app, path, "POST")).label for path in ("/r/x", "/m/x")] == ["POST /r/x", "POST /m/x"]


def test_a_method_is_counted_where_the_routes_are_not_those_that_were_read() -> None:
    """A route that took the place of another, or that was added with a wrong decorator, may serve it."""
    app = Starlette(routes=[Route("/x", view)])
    matcher = matcher_of(app)
    assert matcher.find(scope_of(app, "/x", "POST")) is NOT_COUNTED
    app.router.routes[0] = Route("/x", view, methods=["POST"])
    assert matcher.find(scope_of(app, "/x", "POST")).label == "POST /x"
    late = Starlette(routes=[Route("/x", view)])
    matcher = matcher_of(late)
    matcher.read_routes()
    late.router.routes.append(Route("/x", limit("1/minute", per="tennant")(new_view()), methods=["POST"]))
    found = matcher.find(scope_of(late, "/x", "POST"))
    assert (found.label, found.exempt) == ("POST /x", False)


def test_a_matcher_that_does_not_see_what_is_between_counts_every_method() -> None:
    """Routes that only the scope names may lie behind anything."""

    async def closed(scope: Scope, receive: Receive, send: Send) -> None: ...

    app = Starlette(routes=[Route("/x", view)])
    assert matcher_of(closed).find(scope_of(app, "/x", "POST")).label == "POST /x"
