"""Endpoint templates: found before routing, by the framework's own matching."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from ratelimit import ConfigurationError, RateLimitMiddleware, RateLimitSettings, exempt, limit
from ratelimit.http.endpoints import Endpoints
from ratelimit.plan import Endpoint, Plan


async def view(request: Request) -> Response:
    return PlainTextResponse("ok")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()


def find(app: Any, path: str, method: str = "GET", **more: Any) -> Endpoint:
    """Return the endpoint that a fresh index finds."""
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    return endpoints.find(scope_of(app, path, method, **more))


def scope_of(app: Any, path: str, method: str = "GET", **more: Any) -> Scope:
    scope = {"type": "http", "method": method, "path": path, "headers": [], "app": app, **more}
    if scope["type"] == "websocket":
        del scope["method"]
    return scope


def watched() -> tuple[list[str], type[RateLimitMiddleware]]:
    """Return a list, and a middleware that writes the label of each request into it."""
    seen: list[str] = []

    class Spy(RateLimitMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                seen.append(self._endpoints.find(scope).label)
            await super().__call__(scope, receive, send)

    return seen, Spy


def label(app: Any, path: str, method: str = "GET", **more: Any) -> str:
    return find(app, path, method, **more).label


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
    """A route that fits the path but not the method only counts if no later one fits both."""
    app = Starlette(routes=[Route("/x/{a}", view, methods=["GET"]), Route("/{b}/y", view, methods=["POST"])])
    assert label(app, "/x/y", "POST") == "POST /{b}/y"
    assert label(app, "/x/y", "DELETE") == "DELETE /x/{a}"


def test_unknown_paths_are_one_endpoint() -> None:
    """What no route matches shares one counter, whatever its path and method."""
    app = Starlette(routes=[Route("/known", view)])
    labels = {label(app, f"/nothing/{n}", method) for n in range(9) for method in ("GET", "POST", "BREW")}
    assert labels == {"*"}


def test_made_up_methods_do_not_make_endpoints() -> None:
    """Methods that neither HTTP nor the route knows share one counter per route."""
    app = Starlette(routes=[Route("/known", view)])
    assert {label(app, "/known", method) for method in ("AAA", "BBB", "CCC")} == {"* /known"}


def test_head_is_get() -> None:
    """HEAD counts as GET."""
    app = Starlette(routes=[Route("/known", view)])
    assert label(app, "/known", "HEAD") == "GET /known"


def test_mounts_nest() -> None:
    """Templates below mounts are whole, also where the mount has parameters."""
    inner = Mount("/projects/{project}", routes=[Route("/runs/{id}", view), Route("/", view)])
    app = Starlette(routes=[Mount("/orgs/{org:int}", routes=[inner]), Route("/orgs/new", view)])
    assert label(app, "/orgs/4/projects/p/runs/9") == "GET /orgs/{org}/projects/{project}/runs/{id}"
    assert label(app, "/orgs/4/projects/p/") == "GET /orgs/{org}/projects/{project}"
    assert label(app, "/orgs/new") == "GET /orgs/new"
    assert label(app, "/orgs/4/projects/p/none/such") == "*"


def test_a_mounted_app_without_routes_is_one_endpoint(tmp_path: Any) -> None:
    """Static files and other opaque apps are one endpoint each."""
    app = Starlette(routes=[Mount("/static", app=StaticFiles(directory=tmp_path))])
    assert {label(app, f"/static/{name}") for name in ("a.css", "b/c.js")} == {"GET /static/{path}"}


def test_sub_applications_keep_their_routes_behind_middleware() -> None:
    """A mounted app is looked into, also through the middlewares around it."""

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
    """The same path on two hosts is two endpoints, and settings may name it without the host."""
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


def test_root_path_is_not_part_of_the_endpoint() -> None:
    """Behind a proxy that strips or keeps a prefix, the template is the same."""
    app = Starlette(routes=[Route("/runs/{id}", view), Mount("/sub", routes=[Route("/x", view)])])
    assert label(app, "/api/runs/1", root_path="/api") == "GET /runs/{id}"
    assert label(app, "/runs/1", root_path="/api") == "GET /runs/{id}"
    assert label(app, "/api/sub/x", root_path="/api") == "GET /sub/x"


def test_websocket_routes_have_endpoints() -> None:
    """A handshake is a GET to its route."""
    app = Starlette(routes=[WebSocketRoute("/rooms/{room}", chat), Route("/rooms/{id}/log", view)])
    assert label(app, "/rooms/7", type="websocket") == "GET /rooms/{room}"
    assert label(app, "/rooms/7") == "*"


def test_routes_with_their_own_matching_are_asked() -> None:
    """A route class that looks at headers decides by itself, every time anew."""

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
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    first = endpoints.find(scope_of(app, "/v", headers=[(b"x-version", b"2")]))
    second = endpoints.find(scope_of(app, "/v"))
    assert [first.label, second.label] == ["GET /v", "GET /{any}"]
    assert endpoints.find(scope_of(app, "/odd")).label == "GET /Odd"


def test_routes_that_are_added_later_are_found() -> None:
    """The index is made anew when the number of routes has changed."""
    app = Starlette(routes=[Route("/a", view)])
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    assert endpoints.find(scope_of(app, "/b")).label == "*"
    app.router.routes.append(Route("/b", view))
    assert endpoints.find(scope_of(app, "/b")).label == "GET /b"


def test_the_memory_of_endpoints_is_bounded() -> None:
    """A flood of made-up paths neither grows the index nor changes what is found."""
    app = Starlette(routes=[Route("/runs/{id}", view)])
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    found = {endpoints.find(scope_of(app, f"/runs/{n}")).label for n in range(10_000)}
    assert found == {"GET /runs/{id}"}
    assert len(endpoints._found) <= 4096


def test_the_path_converter_spans_segments() -> None:
    """`{rest:path}` in the middle and at the end is followed as the framework does."""
    app = Starlette(routes=[Route("/f/{rest:path}/raw", view), Route("/f/{rest:path}", view), Route("/{a}.json", view)])
    assert label(app, "/f/a/b/raw") == "GET /f/{rest}/raw"
    assert label(app, "/f/a/b") == "GET /f/{rest}"
    assert label(app, "/x.json") == "GET /{a}.json"


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


# FastAPI: routers that are included keep their prefixes, and what decorators said.


def fastapi_app() -> FastAPI:
    async def needed() -> str:
        return "dependency"

    users, orders = APIRouter(prefix="/users"), APIRouter()
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @users.get("/list")
    @limit("3/minute", per="token")
    async def list_users() -> str:
        return "users"

    @orders.get("/list", dependencies=[Depends(needed)])
    def list_orders(value: Annotated[str, Depends(needed)]) -> str:
        return value

    @inner.get("/{item_id}/parts/{part}")
    @exempt
    async def part(item_id: int, part: str) -> str:
        return part

    @inner.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()

    inner.mount("/files", Starlette(routes=[Route("/{name}", view)]))
    inner.add_route("/plain/{x}", view)
    outer.include_router(inner, prefix="/deep")
    app = FastAPI()
    app.include_router(users)
    app.include_router(orders, prefix="/orders", dependencies=[Depends(needed)])
    app.include_router(outer, prefix="/api/v1")
    sub = FastAPI()
    sub.include_router(users, prefix="/sub")
    app.mount("/mounted", sub)
    return app


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/list", "GET /users/list"),
        ("/orders/list", "GET /orders/list"),
        ("/api/v1/outer/deep/inner/4/parts/x", "GET /api/v1/outer/deep/inner/{item_id}/parts/{part}"),
        # FastAPI does not apply a router's own prefix to what `add_route` and `mount` add.
        ("/api/v1/outer/deep/plain/9", "GET /api/v1/outer/deep/plain/{x}"),
        ("/api/v1/outer/deep/files/a", "GET /api/v1/outer/deep/files/{name}"),
        ("/api/v1/outer/deep/inner/files/a", "*"),
        ("/mounted/sub/users/list", "GET /mounted/sub/users/list"),
        ("/mounted/users/list", "*"),
        ("/inner/4/parts/x", "*"),
        ("/docs", "GET /docs"),
    ],
)
def test_included_routers_have_whole_templates(path: str, expected: str) -> None:
    """`include_router` at any depth leaves templates with all prefixes."""
    assert label(fastapi_app(), path) == expected


def test_websockets_of_included_routers() -> None:
    """A WebSocket route of an included router has its whole template."""
    path = "/api/v1/outer/deep/inner/ws"
    assert label(fastapi_app(), path, type="websocket") == f"GET {path}"


def test_decorators_survive_include_router() -> None:
    """What a decorator said on an included route holds wherever the router is included."""
    app = fastapi_app()
    assert [one.name for one in find(app, "/users/list").limits] == ["list_users"]
    assert [one.name for one in find(app, "/mounted/sub/users/list").limits] == ["list_users"]
    assert find(app, "/orders/list").limits == ()
    assert find(app, "/api/v1/outer/deep/inner/4/parts/x").exempt


def test_what_the_index_finds_is_what_the_app_serves() -> None:
    """For every path, the app answers 404 exactly where the index knows no endpoint."""
    app = fastapi_app()
    client = TestClient(app)
    for path in (
        "/users/list",
        "/orders/list",
        "/api/v1/outer/deep/inner/4/parts/x",
        "/nope",
        "/users",
        "/docs",
        "/api/v1/outer/deep/plain/9",
        "/api/v1/outer/deep/files/a",
        "/mounted/sub/users/list",
        "/mounted/x",
    ):
        assert (client.get(path).status_code == 404) == (label(app, path) == "*"), path


def test_a_middleware_below_a_mount_sees_whole_templates() -> None:
    """Two mounts of the same routes with a limiter inside each do not share counters."""
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


def test_an_endpoint_may_call_a_limited_one(caplog: pytest.LogCaptureFixture) -> None:
    """Closing over an endpoint that is served itself is no hidden limit, and nothing is said of it."""

    @limit("1/minute")
    async def inner(request: Request) -> Response:
        return PlainTextResponse("inner")

    async def outer(request: Request) -> Response:
        return await inner(request)

    app = Starlette(routes=[Route("/inner", inner), Route("/outer", outer)])
    Endpoints(app, Plan(RateLimitSettings())).build()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("dimension", "name", "expected"),
    [("teamspace", None, "'teamspace' is not one of"), ("token", "token", "'token' is already the name of limits.0")],
)
def test_a_wrong_decorator_is_named_at_start(dimension: str, name: str | None, expected: str) -> None:
    """A decorator that does not fit the settings fails when the routes are read, with the endpoint's name."""

    @limit("1/minute", per=dimension, name=name)
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok")

    settings = RateLimitSettings.model_validate({"limits": [{"name": "token", "rate": "5/minute", "per": "token"}]})
    app = Starlette(routes=[Route("/x", endpoint)])
    with pytest.raises(ConfigurationError, match=r"^@limit '\w+' on GET /x: (per|name): " + expected):
        Endpoints(app, Plan(settings)).build()


# What a review found: each of these once lost a limit without a word.


def limited_names(app: Any, path: str, method: str = "GET", **settings: Any) -> list[str]:
    """Return the policies that hold for a path."""
    plan = Plan(RateLimitSettings.model_validate(settings))
    found = Endpoints(app, plan).find(scope_of(app, path, method))
    return [policy.name for policy in plan.rules(found).policies]


def test_a_newline_at_the_end_is_the_same_endpoint() -> None:
    """`/x%0A` is served by `/x`, and counted there."""
    app = Starlette(routes=[Route("/x", view), Route("/a/{b}/c", view), Route("/r/{id}", view)])
    labels = [label(app, path) for path in ("/x\n", "/a/1/c\n", "/r/1\n", "/x\n\n")]
    assert labels == ["GET /x", "GET /a/{b}/c", "GET /r/{id}", "*"]


@pytest.mark.parametrize("written", ["/runs/{id:int}", "/runs/{id}", "/runs/{id}/", "/runs/*", "/runs/{id:int}/"])
@pytest.mark.parametrize("route", ["/runs/{id:int}", "/runs/{id}/"])
def test_settings_may_name_a_path_as_the_route_does(written: str, route: str) -> None:
    """Convertors and a last slash make no difference, in limits and in exemptions."""
    app = Starlette(routes=[Route(route, view)])
    limits = [{"name": "p", "rate": "1/minute", "paths": [written]}]
    assert limited_names(app, "/runs/1", limits=limits) == ["p"]
    assert limited_names(app, "/runs/1", limits=limits, exempt=[written]) == []


def test_a_route_with_a_pattern_of_its_own_is_found() -> None:
    """Routes whose regular expression was replaced, as for matching without case, are asked one by one."""
    import re  # noqa: PLC0415 - only here

    route = Route("/secret", view)
    route.path_regex = re.compile("^/secret$", re.IGNORECASE)
    app = Starlette(routes=[Route("/other", view), route])
    assert {label(app, path) for path in ("/secret", "/SECRET")} == {"GET /secret"}


def test_included_routes_with_their_own_matching_are_asked() -> None:
    """A route class that looks at headers decides by itself below `include_router` too."""

    class Versioned(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            wanted = b"2" if self.name == "two" else b"1"
            return super().matches(scope) if (b"x-version", wanted) in scope["headers"] else (Match.NONE, {})

    router = APIRouter(route_class=Versioned)

    @router.get("/v")
    @exempt
    async def one() -> str:
        return "one"

    @router.get("/v")
    async def two() -> str:
        return "two"

    app = FastAPI()
    app.include_router(router, prefix="/api")
    found = [find(app, "/api/v", headers=[(b"x-version", version)]) for version in (b"1", b"2", b"3")]
    assert [each.label for each in found] == ["GET /api/v", "GET /api/v", "*"]
    assert [each.exempt for each in found] == [True, False, False]


def traced(function: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Response:
        response: Response = await function(*args, **kwargs)
        return response

    return wrapper


def narrow(function: Any) -> Any:
    async def wrapper(request: Request) -> Response:
        response: Response = await function(request)
        return response

    return wrapper


class Traced:
    def __init__(self, function: Any) -> None:
        self.function = function

    async def __call__(self, request: Request) -> Response:
        response: Response = await self.function(request)
        return response


def plain_view() -> Any:
    async def slow(request: Request) -> Response:
        return PlainTextResponse("slow")

    return slow


def limited_view() -> Any:
    return limit("1/minute")(plain_view())


def build(*endpoints: Any) -> None:
    routes = [Route(f"/{n}", endpoint) for n, endpoint in enumerate(endpoints)]
    Endpoints(Starlette(routes=routes), Plan(RateLimitSettings())).build()


@pytest.mark.parametrize(
    "hide",
    [
        lambda: traced(limited_view()),
        lambda: traced(traced(limited_view())),
        lambda: type("Items", (HTTPEndpoint,), {"get": traced(limited_view())}),
    ],
    ids=["once", "twice", "method"],
)
def test_a_wrapper_that_hides_a_limit_fails_at_start(hide: Any) -> None:
    """A wrapper that takes anything and passes no limit on would lose it silently; it is named instead."""
    with pytest.raises(ConfigurationError, match="slow has no effect"):
        build(hide())


@pytest.mark.parametrize("hide", [narrow, Traced])
def test_a_limit_that_is_probably_lost_is_told(caplog: pytest.LogCaptureFixture, hide: Any) -> None:
    """Where it may be meant, as with an endpoint that calls another one, the log says so and the app starts."""
    build(hide(limited_view()))
    assert ["slow probably has no effect" in message for message in caplog.messages] == [True]


def test_a_limit_on_a_wrapper_above_the_route_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """`@limit` over a wrapper over the route decorator limits nothing: the app serves what is below it."""
    app = FastAPI()

    @limit("1/minute")
    @traced
    @app.get("/x")
    async def served() -> str:
        return "x"

    Endpoints(app, Plan(RateLimitSettings())).build()
    assert ["wrapper probably has no effect" in message for message in caplog.messages] == [True]
    assert callable(served)


def test_correct_apps_start_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    """Factories, feature flags, partials, well-made wrappers and endpoints that call each other are all fine."""
    import functools  # noqa: PLC0415 - only here

    def auth(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    handler = plain_view()
    first = limit("1/minute")(auth(handler))
    build(first)
    build(handler)  # The same handler, unlimited, in a second app.
    answer = auth(limited_view())

    async def batch(request: Request) -> Any:
        return await answer(request)

    part = functools.partial(limited_view())

    async def calls_part(request: Request) -> Any:
        return await part(request)

    build(batch, answer)
    build(part, calls_part)
    assert caplog.messages == []


@pytest.mark.parametrize("slots", [True, False])
def test_any_callable_object_takes_a_limit(*, slots: bool) -> None:
    """Objects that cannot be hashed or weakly referenced are endpoints too."""

    class Unhashable:
        __slots__ = ("__ratelimit__",) if slots else ("__dict__",)
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    endpoint = limit("1/minute", name="object")(Unhashable())
    assert limited_names(Starlette(routes=[Route("/o", endpoint)]), "/o") == ["object"]


def test_a_late_route_that_cannot_work_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """After the start, a wrong decorator is told in the log, and what was read before goes on."""
    app = Starlette(routes=[Route("/ok", view)])
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    endpoints.build()
    app.router.routes.append(Route("/late", limit("1/minute", per="nobody")(plain_view())))
    assert [endpoints.find(scope_of(app, path)).label for path in ("/ok", "/late", "/ok")] == [
        "GET /ok",
        "*",
        "GET /ok",
    ]
    assert [message[:22] for message in caplog.messages] == ["routes were added whos"]


def test_long_methods_are_not_remembered() -> None:
    """Nor do callers choose memory by the method."""
    app = Starlette(routes=[Route("/x", view)])
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    endpoints.find(scope_of(app, "/x", "A" * 10_000))
    assert endpoints._found == {}


def test_apps_that_are_mounted_with_limiters_of_their_own_are_apart() -> None:
    """`/users/list` and `/orders/list` of mounted apps have labels of their own, parameters by name."""
    seen, spy = watched()
    sub = FastAPI()
    sub.get("/list")(lambda: "list")
    sub.add_middleware(spy, settings=RateLimitSettings())
    outer = FastAPI()
    outer.mount("/deep", sub)
    outer.get("/x")(limit("1/minute", per="nobody")(lambda: "x"))  # Of no concern to the limiters inside.
    routes = [Mount("/users", app=sub), Mount("/orgs/{org:int}/v{n:int}", app=sub), Mount("/outer", app=outer)]
    client = TestClient(Starlette(routes=routes))
    for path in ("/users/list", "/orgs/7/v1/list", "/orgs/007/v2/list", "/orgs/1/v001/list", "/outer/deep/list"):
        assert client.get(path).status_code == 200
    assert seen == ["GET /users/list", *["GET /orgs/{org}/v{n}/list"] * 3, "GET /outer/deep/list"]


def test_settings_of_a_mounted_app_name_paths_as_it_does_or_whole() -> None:
    """An app with settings of its own need not know where it is mounted, but may."""

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


def test_overlapping_patterns_all_hold_where_there_are_no_routes() -> None:
    """Below a plain ASGI app, every pattern that fits a path means it."""
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


def test_routes_that_are_added_to_included_and_mounted_routers_are_found() -> None:
    """Also below the top, the index follows the routes."""
    router, sub = APIRouter(), Starlette(routes=[Route("/one", view)])
    router.add_api_route("/one", lambda: "one")
    app = FastAPI()
    app.include_router(router, prefix="/r")
    app.mount("/m", sub)
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    assert [endpoints.find(scope_of(app, path)).label for path in ("/r/two", "/m/two")] == ["*", "*"]
    router.add_api_route("/two", lambda: "two")
    sub.router.routes.append(Route("/two", view))
    assert [endpoints.find(scope_of(app, path)).label for path in ("/r/two", "/m/two")] == ["GET /r/two", "GET /m/two"]


def test_a_mount_that_matched_is_not_left_again() -> None:
    """A 404 below a mount is unknown, though a route outside would fit with a slash."""
    app = Starlette(routes=[Route("/a/b/", view), Mount("/a", routes=[Route("/c", view)])])
    assert label(app, "/a/b") == "*"
    assert label(app, "/a/b/") == "GET /a/b"


def test_an_app_whose_routes_cannot_be_seen_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A middleware that keeps its app to itself hides the routes; the log says so, once."""
    app = Starlette(routes=[Route("/x", view)])

    async def closed(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    endpoints = Endpoints(closed, Plan(RateLimitSettings()))
    for _ in range(3):
        assert endpoints.find(scope_of(None, "/x")).label == "*"
    assert [message[:24] for message in caplog.messages] == ["no routes can be seen fr"]


def test_long_paths_are_not_remembered() -> None:
    """Callers choose paths, not how much memory they take."""
    app = Starlette(routes=[Route("/f/{rest:path}", view)])
    endpoints = Endpoints(app, Plan(RateLimitSettings()))
    for path in ("/f/" + "x" * 10_000, "/unknown"):
        endpoints.find(scope_of(app, path))
    assert endpoints._found == {}


def test_every_handler_of_a_class_is_checked_at_start() -> None:
    """A wrong decorator on `put` does not wait for the first PUT."""

    class Items(HTTPEndpoint):
        @limit("1/minute", per="nobody")
        async def put(self, request: Request) -> Response:
            return PlainTextResponse("put")

    app = Starlette(routes=[Route("/items", Items)])
    with pytest.raises(ConfigurationError, match="PUT /items: per: 'nobody'"):
        Endpoints(app, Plan(RateLimitSettings())).build()
