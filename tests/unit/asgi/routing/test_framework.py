"""What Starlette and FastAPI keep inside: routers, included routes, and the paths that their routes match."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Mount, Route, Router
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from ratelimit import exempt, limit
from ratelimit.asgi.routing.framework import (
    RoutePath,
    flat_routes,
    included_routers,
    matches_by_itself,
    redirects_slashes,
    router_below,
    router_of,
)
from tests.unit.asgi.routing.lookups import find, label, live_includes, scope_of, view


def test_a_route_path_is_below_the_root_path() -> None:
    """The path is what routes match: without the root path, which only counts at a segment's end."""
    paths = [("/api/x", "/api"), ("/x", "/api"), ("/apix", "/api"), ("/api", "/api"), ("/x", "")]
    found = [RoutePath.of(scope_of(None, path, root_path=root)).path for path, root in paths]
    assert found == ["/x", "/x", "/apix", "", "/x"]


def test_a_route_path_has_the_method_that_is_counted() -> None:
    """Upper case, HEAD as GET; a WebSocket handshake is a GET."""
    scopes = [scope_of(None, "/x", method) for method in ("get", "HEAD", "post")]
    scopes.append(scope_of(None, "/x", type="websocket"))
    assert [RoutePath.of(scope).method for scope in scopes] == ["GET", "GET", "POST", "GET"]


def test_the_other_slash_is_where_the_framework_redirects() -> None:
    """A slash at the end is added or removed, except for `/` and for WebSockets; the scope is not changed."""
    scope = scope_of(None, "/x")
    other = RoutePath.of(scope).with_other_slash()
    assert other is not None
    assert (other.path, scope["path"]) == ("/x/", "/x")
    back = other.with_other_slash()
    assert back is not None
    assert back.path == "/x"
    assert RoutePath.of(scope_of(None, "/")).with_other_slash() is None
    assert RoutePath.of(scope_of(None, "/x", type="websocket")).with_other_slash() is None


def test_a_route_path_that_was_redirected_is_not_certain() -> None:
    """Also after the changes that mounts make; the path itself is."""
    route_path = RoutePath.of(scope_of(None, "/x"))
    other = route_path.with_other_slash()
    assert other is not None
    found = [route_path, route_path.with_scope(path="/y"), other, other.with_scope(path="/y"), route_path.uncertain()]
    assert [each.is_certain for each in found] == [True, True, False, False, False]


async def opaque(scope: Scope, receive: Receive, send: Send) -> None: ...


def test_the_router_is_found_through_middlewares() -> None:
    """The router of an app behind middlewares is that of the app; an opaque app has none."""
    app = Starlette(routes=[Route("/x", view)])
    assert router_of(GZipMiddleware(GZipMiddleware(app))) is app
    assert router_of(opaque) is None
    assert router_below(Mount("/m", app=opaque)) is None
    below = router_below(Mount("/m", app=GZipMiddleware(app)))
    assert [route.path for route in below.routes] == ["/x"]


def test_an_app_redirects_slashes_as_its_router_does() -> None:
    """Both a router and the app around it are asked."""
    routers = [Router(redirect_slashes=redirects) for redirects in (True, False)]
    assert [redirects_slashes(router) for router in routers] == [True, False]
    app = FastAPI(redirect_slashes=False)
    assert not redirects_slashes(app)


@live_includes
def test_included_routers_are_seen_at_any_depth() -> None:
    """Routes that are added to them later change what the app serves, so they have to be watched."""
    inner, outer, app = APIRouter(), APIRouter(), FastAPI()
    inner.add_api_route("/x", lambda: "x")
    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    assert {id(router) for router in included_routers(app.routes)} == {id(inner), id(outer)}
    assert "/v1/x" in [getattr(route, "path", None) for route in flat_routes(app.routes)]


def test_only_route_classes_of_the_frameworks_match_by_the_path() -> None:
    """A subclass with its own `matches` may look at anything."""

    class Versioned(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope)

    assert [matches_by_itself(kind("/x", view)) for kind in (Route, Versioned)] == [False, True]


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
        pytest.param("/api/v1/outer/deep/plain/9", "GET /api/v1/outer/deep/plain/{x}", marks=live_includes),
        pytest.param("/api/v1/outer/deep/files/a", "GET /api/v1/outer/deep/files/{name}", marks=live_includes),
        ("/api/v1/outer/deep/inner/files/a", "*"),
        ("/mounted/sub/users/list", "GET /mounted/sub/users/list"),
        ("/mounted/users/list", "*"),
        ("/inner/4/parts/x", "*"),
        ("/docs", "GET /docs"),
    ],
)
def test_included_routers_have_whole_templates(path: str, expected: str) -> None:
    """A route that was included at any depth has a template with all prefixes."""
    assert label(fastapi_app(), path) == expected


def test_websockets_of_included_routers() -> None:
    """A WebSocket route of an included router has its whole template."""
    path = "/api/v1/outer/deep/inner/ws"
    assert label(fastapi_app(), path, type="websocket") == f"GET {path}"


def test_decorators_survive_include_router() -> None:
    """The limits of an included route hold wherever the router is included."""
    app = fastapi_app()
    assert [one.name for one in find(app, "/users/list").limits] == ["list_users"]
    assert [one.name for one in find(app, "/mounted/sub/users/list").limits] == ["list_users"]
    assert find(app, "/orders/list").limits == ()
    assert find(app, "/api/v1/outer/deep/inner/4/parts/x").exempt


def test_what_the_matcher_finds_is_what_the_app_serves() -> None:
    """For every path, the app answers 404 exactly where the matcher knows no endpoint."""
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


def test_included_routes_with_their_own_matching_decide() -> None:
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
