"""The route index: which endpoint a route path leads to, by the framework's own matching."""

import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ratelimit import ConfigurationError, RateLimitSettings, limit
from ratelimit.asgi.routing.framework import RoutePath
from ratelimit.asgi.routing.route_index import DEAD_END, NOT_ALLOWED, FoundRoute, RouteIndex
from ratelimit.resolver.endpoint import Endpoint
from ratelimit.resolver.resolver import PolicyResolver
from tests.unit.asgi.routing.lookups import (
    NOT_COUNTED,
    chat,
    find,
    label,
    live_includes,
    matcher_of,
    new_view,
    scope_of,
    view,
)


def index_of(app: Any, *, bare: bool = False) -> RouteIndex:
    return RouteIndex.of(app, PolicyResolver(RateLimitSettings()), bare=bare)


def search(index: RouteIndex, path: str, method: str = "GET") -> FoundRoute | None:
    return index.search(RoutePath.of(scope_of(None, path, method)))


def test_path_parameters_share_one_endpoint() -> None:
    """Every value of a path parameter is the same endpoint, with or without a trailing slash."""
    app = Starlette(routes=[Route("/runs/{id:int}", view), Route("/runs/{id}/steps/{step}", view)])
    assert {label(app, f"/runs/{n}") for n in range(20)} == {"GET /runs/{id}"}
    assert label(app, "/runs/7/") == "GET /runs/{id}"
    assert label(app, "/runs/7/steps/a") == "GET /runs/{id}/steps/{step}"


def test_the_first_route_that_matches_is_the_endpoint() -> None:
    """Routes are tried in the order of their declaration, as the framework does."""
    early = Starlette(routes=[Route("/users/{id}", view), Route("/users/me", view)])
    late = Starlette(routes=[Route("/users/me", view), Route("/users/{id}", view)])
    assert label(early, "/users/me") == "GET /users/{id}"
    assert label(late, "/users/me") == "GET /users/me"


def test_a_route_for_another_method_gives_way() -> None:
    """A later route that serves the method is the endpoint; where there is none, the framework answers 405."""
    app = Starlette(routes=[Route("/x/{a}", view, methods=["GET"]), Route("/{b}/y", view, methods=["POST"])])
    assert label(app, "/x/y", "POST") == "POST /{b}/y"
    assert find(app, "/x/y", "DELETE") is NOT_COUNTED


def test_made_up_methods_do_not_make_endpoints() -> None:
    """Methods that neither HTTP nor the route knows share one endpoint of each route that serves any method."""
    app = Starlette(routes=[Route("/known", PlainTextResponse("ok"))])
    assert {label(app, "/known", method) for method in ("AAA", "BBB", "CCC")} == {"* /known"}


def test_head_is_get() -> None:
    """HEAD counts as GET."""
    app = Starlette(routes=[Route("/known", view)])
    assert label(app, "/known", "HEAD") == "GET /known"


def test_the_path_converter_spans_segments() -> None:
    """`{rest:path}` in the middle and at the end matches as it does in the framework."""
    app = Starlette(routes=[Route("/f/{rest:path}/raw", view), Route("/f/{rest:path}", view), Route("/{a}.json", view)])
    assert label(app, "/f/a/b/raw") == "GET /f/{rest}/raw"
    assert label(app, "/f/a/b") == "GET /f/{rest}"
    assert label(app, "/x.json") == "GET /{a}.json"


def test_a_newline_at_the_end_is_the_same_endpoint() -> None:
    """The framework serves `/x%0A` by the route `/x`, and it is counted there."""
    app = Starlette(routes=[Route("/x", view), Route("/a/{b}/c", view), Route("/r/{id}", view)])
    labels = [label(app, path) for path in ("/x\n", "/a/1/c\n", "/r/1\n", "/x\n\n")]
    assert labels == ["GET /x", "GET /a/{b}/c", "GET /r/{id}", "*"]


def test_websocket_routes_have_endpoints() -> None:
    """A handshake is a GET to its route."""
    app = Starlette(routes=[WebSocketRoute("/rooms/{room}", chat), Route("/rooms/{id}/log", view)])
    assert label(app, "/rooms/7", type="websocket") == "GET /rooms/{room}"
    assert label(app, "/rooms/7") == "*"


def test_templates_below_mounts_are_whole() -> None:
    """A template contains those of all mounts above it, parameters included."""
    inner = Mount("/projects/{project}", routes=[Route("/runs/{id}", view), Route("/", view)])
    app = Starlette(routes=[Mount("/orgs/{org:int}", routes=[inner]), Route("/orgs/new", view)])
    assert label(app, "/orgs/4/projects/p/runs/9") == "GET /orgs/{org}/projects/{project}/runs/{id}"
    assert label(app, "/orgs/4/projects/p/") == "GET /orgs/{org}/projects/{project}"
    assert label(app, "/orgs/new") == "GET /orgs/new"
    assert label(app, "/orgs/4/projects/p/none/such") == "*"


def test_a_mount_that_matched_is_not_left() -> None:
    """A path that no route below the mount matches is unknown, even if a route outside would match with a slash."""
    app = Starlette(routes=[Route("/a/b/", view), Mount("/a", routes=[Route("/c", view)])])
    assert label(app, "/a/b") == "*"
    assert label(app, "/a/b/") == "GET /a/b"


def test_a_mounted_app_without_routes_is_one_endpoint(tmp_path: Any) -> None:
    """Static files and other opaque apps are one endpoint each."""
    app = Starlette(routes=[Mount("/static", app=StaticFiles(directory=tmp_path))])
    assert {label(app, f"/static/{name}") for name in ("a.css", "b/c.js")} == {"GET /static/{path}"}


def test_sub_applications_keep_their_routes_behind_middleware() -> None:
    """The index reads the routes of a mounted app, also through the middlewares around it."""

    def wrapped(app: ASGIApp) -> ASGIApp:
        class Wrapper:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await self.app(scope, receive, send)

        return Wrapper(app)

    sub = Starlette(routes=[Route("/things/{id}", view)])
    app = Starlette(routes=[Mount("/a", app=wrapped(sub)), Mount("/b", app=sub), Mount("/c", app=Router(sub.routes))])
    labels = [label(app, f"/{mount}/things/1") for mount in "abc"]
    assert labels == ["GET /a/things/{id}", "GET /b/things/{id}", "GET /c/things/{id}"]


def test_hosts_are_apart() -> None:
    """The same path on two hosts is two endpoints, whose templates do not contain the host."""
    app = Starlette(
        routes=[
            Host("api.example.com", app=Router([Route("/list", view)])),
            Host("{tenant}.example.com", app=Router([Route("/list", view)])),
        ]
    )

    def of(host: bytes) -> Endpoint:
        return find(app, "/list", headers=[(b"host", host)])

    assert of(b"api.example.com").label == "GET api.example.com/list"
    assert of(b"a.example.com").label == of(b"b.example.com").label == "GET {tenant}.example.com/list"
    assert of(b"a.example.com").template == "/list"
    assert of(b"elsewhere.org").label == "*"


def test_routes_with_their_own_matching_decide() -> None:
    """A route class that looks at headers decides by itself, at every request."""

    class Versioned(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            if (b"x-version", b"2") not in scope["headers"]:
                return Match.NONE, {}
            return super().matches(scope)

    class Odd(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL, {}) if scope["path"] == "/odd" else (Match.NONE, {})

    app = Starlette(routes=[Versioned("/v", view, name="two"), Route("/{any}", view), Odd()])
    app.router.routes.insert(1, Odd())
    matcher = matcher_of(app)
    first = matcher.find(scope_of(app, "/v", headers=[(b"x-version", b"2")]))
    second = matcher.find(scope_of(app, "/v"))
    assert [first.label, second.label] == ["GET /v", "GET /{any}"]
    assert matcher.find(scope_of(app, "/odd")).label == "GET /Odd"


def test_a_route_with_a_pattern_of_its_own_is_found() -> None:
    """A route whose regular expression was replaced, as for matching without case, is tried for every path."""
    route = Route("/secret", view)
    route.path_regex = re.compile("^/secret$", re.IGNORECASE)
    app = Starlette(routes=[Route("/other", view), route])
    assert {label(app, path) for path in ("/secret", "/SECRET")} == {"GET /secret"}


def test_limits_on_classes_and_their_methods() -> None:
    """A class-based endpoint may be limited as a whole and by method."""

    @limit("100/minute", per="token")
    class Items(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("items")

        @limit("5/minute", per="token", name="create")
        async def post(self, request: Request) -> Response:
            return PlainTextResponse("made")

    app = Starlette(routes=[Route("/items", Items)])
    assert [one.name for one in find(app, "/items").limits] == ["Items"]
    assert [one.name for one in find(app, "/items", "POST").limits] == ["Items", "create"]


def test_every_handler_of_a_class_is_checked_at_start() -> None:
    """A wrong decorator on `put` fails when the routes are read, not at the first PUT."""

    class Items(HTTPEndpoint):
        @limit("1/minute", per="tennant")
        async def put(self, request: Request) -> Response:
            return PlainTextResponse("put")

    app = Starlette(routes=[Route("/items", Items)])
    with pytest.raises(ConfigurationError, match="PUT /items: per: 'tennant'"):
        matcher_of(app).read_routes()


@pytest.mark.parametrize(
    ("dimension", "name", "expected"),
    [("teamspace", None, "'teamspace' is not one of"), ("token", "token", "'token' is already the name of limits.0")],
)
def test_a_wrong_decorator_fails_at_start(dimension: str, name: str | None, expected: str) -> None:
    """A decorator that contradicts the settings fails when the routes are read, with the endpoint's name."""

    @limit("1/minute", per=dimension, name=name)
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok")

    limits = [{"name": "token", "rate": "5/minute", "per": "token"}]
    app = Starlette(routes=[Route("/x", endpoint)])
    with pytest.raises(ConfigurationError, match=r"^@limit '\w+' on GET /x: (per|name): " + expected):
        matcher_of(app, limits=limits).read_routes()


def test_an_index_says_when_it_is_stale_and_when_it_is_volatile() -> None:
    """A route that is added makes it stale until the change is accepted; hosts make it volatile."""
    app = Starlette(routes=[Route("/a", view), Mount("/m", routes=[Route("/b", view)])])
    index = index_of(app)
    assert (index.is_stale(), index.is_volatile) == (False, False)
    app.router.routes.append(Route("/c", view))
    assert index.is_stale()
    index.accept_changes()
    assert not index.is_stale()
    assert index_of(Starlette(routes=[Host("a.example.com", app=Router([Route("/", view)]))])).is_volatile


def test_a_search_tells_a_dead_end_from_an_unknown_path() -> None:
    """Below a mount that matched, no later route is tried; elsewhere there is nothing to find."""
    index = index_of(Starlette(routes=[Mount("/m", routes=[Route("/b", view)])]))
    assert search(index, "/m/x") is DEAD_END
    assert search(index, "/x") is None
    found = search(index, "/m/b")
    assert found is not None
    assert found[0].label == "GET /m/b"


def test_a_bare_index_reads_no_decorators() -> None:
    """It names templates alone: the decorators belong to the limiter of another app."""
    app = Starlette(routes=[Route("/x", limit("1/minute", per="tennant")(new_view()))])
    found = search(index_of(app, bare=True), "/x")
    assert found is not None
    assert (found[0].label, found[0].limits) == ("GET /x", ())
    with pytest.raises(ConfigurationError, match="'tennant'"):
        index_of(app)


def test_endpoints_lists_what_the_routes_declare() -> None:
    """One endpoint for each declared method, before any request came."""
    app = Starlette(routes=[Route("/a", view, methods=["GET", "POST"]), Mount("/m", routes=[Route("/b", view)])])
    labels = sorted(endpoint.label for endpoint in index_of(app).endpoints())
    assert labels == ["GET /a", "GET /m/b", "POST /a"]


def direct_index_of(*routes: Any) -> RouteIndex:
    """Return the index of an app whose requests nothing changes before they reach its routes."""
    return RouteIndex.of(Starlette(routes=list(routes)), PolicyResolver(RateLimitSettings()), is_direct=True)


def test_a_method_that_no_route_of_the_path_serves_is_not_allowed() -> None:
    """HEAD as the route has it; below mounts too, unless another app is in between."""

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None: ...

    class Wrapper:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    class Items(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("items")

    inner = [Route("/b", view), Route("/c", Items)]
    index = direct_index_of(
        Route("/a", view),
        APIRoute("/f", lambda: "f"),
        Mount("/m", routes=inner),
        Mount("/w", app=Wrapper(Router(inner))),
        Mount("/o", app=opaque),
    )
    found = {
        f"{method} {path}": search(index, path, method) is NOT_ALLOWED
        for path in ("/a", "/f", "/m/b", "/m/c", "/w/b", "/w/c", "/o/x", "/none")
        for method in ("GET", "HEAD", "PUT")
    }
    assert {name for name, not_allowed in found.items() if not_allowed} == {
        *("PUT /a", "HEAD /f", "PUT /f", "PUT /m/b", "PUT /m/c"),
    }


@live_includes
def test_below_an_included_router_of_the_apps_own_class_every_method_is_counted() -> None:
    """FastAPI hands the request to it, and it may serve what it likes."""

    class Own(APIRouter):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def found(router: APIRouter) -> FoundRoute | None:
        app = FastAPI()
        router.add_api_route("/x", lambda: "x")
        app.include_router(router)
        return search(RouteIndex.of(app, PolicyResolver(RateLimitSettings()), is_direct=True), "/x", "PUT")

    assert found(APIRouter()) is NOT_ALLOWED
    assert found(Own()) is not NOT_ALLOWED


def test_a_redirect_to_such_a_path_is_counted() -> None:
    """The framework redirects without a look at the method: it answers 307, and not 405; below mounts too."""
    index = direct_index_of(Route("/a", view), Mount("/m", routes=[Route("/b/", view)]))
    assert search(index, "/a", "PUT") is NOT_ALLOWED
    for path, template in (("/a/", "PUT /a"), ("/m/b", "PUT /m/b")):
        found = search(index, path, "PUT")
        assert found is not None
        assert (found[0].label, found[0].exempt) == (template, False)


def test_a_path_whose_conversion_fails_is_counted() -> None:
    """The app fails there too, and answers 500, and not 405."""

    class Items(HTTPEndpoint): ...

    index = direct_index_of(Route("/n/{number:int}", Items))
    assert search(index, "/n/7", "GET") is NOT_ALLOWED
    found = search(index, "/n/" + "9" * 5000, "GET")
    assert found is not None
    assert found[0].label == "GET /n/{number}"


def test_an_index_says_when_its_routes_are_others() -> None:
    """One that took the place of another; and changes that were accepted without being read."""
    app = Starlette(routes=[Route("/a", view)])
    index = index_of(app)
    assert index.is_current()
    app.router.routes[0] = Route("/a", view, methods=["POST"])
    assert (index.is_stale(), index.is_current()) == (False, False)
    app.router.routes.append(Route("/b", view))
    index.accept_changes()
    assert (index.is_stale(), index.is_current()) == (False, False)


def test_policies_by_operation_are_those_of_the_route_that_serves() -> None:
    """By method and template, also below mounts; of two routes the first is served."""
    first, second = limit("1/minute", name="first")(new_view()), limit("2/minute", name="second")(new_view())
    index = index_of(Starlette(routes=[Mount("/m", routes=[Route("/a/{n:int}/", first)]), Route("/m/a/{n}", second)]))
    found = index.policies_by_operation()
    assert {key: [policy.name for each in held for policy in each.policies] for key, held in found.items()} == {
        ("GET", "/m/a/{n}"): ["first"],
        ("HEAD", "/m/a/{n}"): ["first"],
    }


def test_a_route_for_any_path_holds_what_may_hold_below_it() -> None:
    """One entry for itself, and one for each pattern of the settings that a path below it may match."""
    limits = [
        {"name": name, "rate": "1/minute", "paths": [path]}
        for name, path in (("slow", "/files/slow/*"), ("all", "*"), ("other", "/other"))
    ]
    resolver = PolicyResolver(RateLimitSettings.model_validate({"limits": limits}))
    index = RouteIndex.of(Starlette(routes=[Route("/files/{rest:path}", view)]), resolver)
    held = index.policies_by_operation()["GET", "/files/{rest}"]
    assert [[policy.name for policy in each.policies] for each in held] == [["all"], ["slow", "all"], ["all"]]
    assert index.policies_by_operation()["GET", "/files/{rest}"] == held
