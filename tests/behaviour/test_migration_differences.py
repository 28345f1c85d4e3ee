"""What the migration pages say of other libraries, and of what to write instead, is so."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, WebSocket
from starlette.responses import JSONResponse
from starlette.testclient import TestClient, WebSocketDenialResponse

from ratelimit import Identity, Limit, RateLimitMiddleware, RateLimitSettings, exempt, limit
from ratelimit.testing import ManualClock
from tests.support.migration import move_limits, needs_fastapi_limiter
from tests.support.ports import free_port


def key_of(connection: Any) -> str:
    return connection.headers.get("x-api-key", "none")  # type: ignore[no-any-return]


def statuses(app: FastAPI, *paths: str, **headers: str) -> list[int]:
    with TestClient(app, raise_server_exceptions=False, headers=headers) as client:
        return [client.get(path).status_code for path in paths]


def ours(*limits: Limit, app: FastAPI | None = None, **settings: Any) -> FastAPI:
    """Return an app that counts callers by their API key."""
    app = app or FastAPI()
    app.add_middleware(
        RateLimitMiddleware,
        settings=RateLimitSettings(limits=limits, **settings),
        identify=lambda connection: Identity(token=key_of(connection)),
    )
    return app


@pytest.fixture
def slowapi() -> Callable[..., tuple[FastAPI, Any]]:
    """Return a function that makes an app with slowapi, and its limiter."""
    pytest.importorskip("slowapi")
    from slowapi import Limiter, _rate_limit_exceeded_handler  # noqa: PLC0415
    from slowapi.errors import RateLimitExceeded  # noqa: PLC0415
    from slowapi.middleware import SlowAPIMiddleware  # noqa: PLC0415

    def key(request: Request) -> str:
        return key_of(request)

    def make(**options: Any) -> tuple[FastAPI, Any]:
        app = FastAPI()
        app.state.limiter = Limiter(key_func=key, **options)
        app.exception_handler(RateLimitExceeded)(_rate_limit_exceeded_handler)
        app.add_middleware(SlowAPIMiddleware)
        return app, app.state.limiter

    return make


Slowapi = Callable[..., tuple[FastAPI, Any]]


def test_a_fixed_window_serves_nearly_twice_at_its_border(
    slowapi: Slowapi, monkeypatch: pytest.MonkeyPatch, freeze_limits: Callable[..., ManualClock]
) -> None:
    """Of five in a minute, slowapi serves nine within two seconds; here any minute has five."""
    before, _ = slowapi(default_limits=["5/minute"])
    after = ours(Limit(name="default", rate="5/minute", per=["endpoint", "token"]))
    clock = freeze_limits(after)
    move_limits(monkeypatch, clock)
    for app, served in ((before, 5), (after, 1)):
        app.get("/")(lambda: None)
        assert statuses(app, "/") == [200]
        clock.advance(seconds=59)
        assert statuses(app, *["/"] * 4) == [200] * 4
        clock.advance(seconds=2)
        assert statuses(app, *["/"] * 5) == [200] * served + [429] * (5 - served)


def test_a_refused_request_costs_nothing(slowapi: Slowapi) -> None:
    """Slowapi counts it: after one that was too expensive, a cheap one that would fit is refused as well."""
    before, limiter = slowapi()

    def cost(request: Request) -> int:
        return int(request.query_params["n"])

    @before.get("/")
    @limiter.limit("10/minute", cost=cost)
    async def old(request: Request) -> None: ...

    after = ours()

    @after.get("/")
    @limit("10/minute", cost=cost)
    async def new() -> None: ...

    assert statuses(before, "/?n=8", "/?n=5", "/?n=1") == [200, 429, 429]
    assert statuses(after, "/?n=8", "/?n=5", "/?n=1") == [200, 429, 200]


def test_limits_are_charged_together(slowapi: Slowapi) -> None:
    """Slowapi charges one after the other: what the second refuses has used up the first."""
    before, limiter = slowapi()
    shared = limiter.shared_limit("3/minute", scope="shared")

    @before.get("/a")
    @limiter.limit("1/minute")
    @shared
    async def old_a(request: Request) -> None: ...

    @before.get("/b")
    @shared
    async def old_b(request: Request) -> None: ...

    after = ours(Limit(name="shared", rate="3/minute", per="token", paths=["/a", "/b"]))

    @after.get("/a")
    @limit("1/minute", per="token")
    async def new_a() -> None: ...

    after.get("/b")(lambda: None)
    asked = "/a", "/a", "/a", "/b", "/b"
    assert statuses(before, *asked) == [200, 429, 429, 429, 429]
    assert statuses(after, *asked) == [200, 429, 429, 200, 200]


def test_urls_and_routes(slowapi: Slowapi) -> None:
    """By default each URL has a counter of its own, and a client that walks them is not limited; `key` keeps it so."""
    before, _ = slowapi(default_limits=["1/minute"])
    by_route = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"], default=True))
    by_url = ours(
        Limit(name="default", rate="1/minute", per="token", key=lambda request: request.url.path, default=True)
    )
    for app, found in ((before, [200, 200, 429]), (by_route, [200, 429, 429]), (by_url, [200, 200, 429])):
        app.get("/reports/{number}")(lambda number: None)
        assert statuses(app, "/reports/1", "/reports/2", "/reports/1") == found


def test_unknown_paths(slowapi: Slowapi) -> None:
    """They are counted here, all together."""
    before, _ = slowapi(default_limits=["1/minute"])
    after = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"], default=True))
    assert statuses(before, "/x", "/y") == [404, 404]
    assert statuses(after, "/x", "/y") == [404, 429]


async def signed_in(x_api_key: Annotated[str, Header()] = "") -> None:
    if x_api_key != "known":
        raise HTTPException(401)


def test_requests_that_do_not_reach_the_endpoint(slowapi: Slowapi) -> None:
    """A decorator of slowapi does not count what validation or a dependency turns away; `refund_on` does so here."""
    before, limiter = slowapi()

    @before.get("/", dependencies=[Depends(signed_in)])
    @limiter.limit("1/minute")
    async def old(request: Request, n: int) -> None: ...

    found = {}
    for refund_on in ((), (401, 422)):
        found[refund_on] = app = ours()

        @app.get("/", dependencies=[Depends(signed_in)])
        @limit("1/minute", per="token", refund_on=refund_on)
        async def new(n: int) -> None: ...

    for app, second in ((before, 200), (found[()], 429), (found[401, 422], 200)):
        assert statuses(app, "/?n=x", "/?n=1", **{"x-api-key": "known"}) == [422, second]
        assert statuses(app, "/?n=1", "/?n=1", **{"x-api-key": "unknown"})[0] == 401


def test_limits_of_the_application(slowapi: Slowapi) -> None:
    """Slowapi does not count routes with a decorator against them; here they count everywhere."""
    before, limiter = slowapi(application_limits=["2/minute"])

    @before.get("/a")
    @limiter.limit("9/minute")
    async def old(request: Request) -> None: ...

    after = ours(Limit(name="application", rate="2/minute", per="token"))

    @after.get("/a")
    @limit("9/minute", per="token")
    async def new() -> None: ...

    for app, found in ((before, [200] * 3), (after, [200, 200, 429])):
        app.get("/b")(lambda: None)
        assert statuses(app, "/a", "/a", "/a") == found
    assert statuses(before, "/b", "/b", "/b") == [200, 200, 429]


def test_a_dynamic_limit_and_the_default(slowapi: Slowapi) -> None:
    """In slowapi the default limit holds beside a dynamic one; here it gives way."""
    before, limiter = slowapi(default_limits=["1/minute"])

    @before.get("/")
    @limiter.limit(lambda: "2/minute")
    async def old(request: Request) -> None: ...

    after = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"], default=True))

    @after.get("/")
    @limit("1/minute", per="token", plans={"pro": "2/minute"})
    async def new() -> None: ...

    after.user_middleware[0].kwargs["identify"] = lambda _: Identity(token="a", plan="pro")
    assert statuses(before, "/", "/", "/") == [200, 429, 429]
    assert statuses(after, "/", "/", "/") == [200, 200, 429]


def test_included_routers(slowapi: Slowapi) -> None:
    """Where FastAPI keeps them as they are, slowapi does not find their routes, and no default limits them."""
    before, _ = slowapi(default_limits=["1/minute"])
    after = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"], default=True))
    for app in (before, after):
        router = APIRouter()
        router.get("/a")(lambda: None)
        app.include_router(router)
    assert statuses(after, "/a", "/a") == [200, 429]
    if has_included_routers(before):
        assert statuses(before, "/a", "/a") == [200, 200]


def has_included_routers(app: FastAPI) -> bool:
    return not hasattr(app.routes[-1], "path")


def test_a_store_that_is_away(slowapi: Slowapi) -> None:
    """Slowapi answers 500 unless it is given a fallback."""
    url = f"redis://127.0.0.1:{free_port()}"
    before, _ = slowapi(default_limits=["1/minute"], storage_uri=url)
    after = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"]), store=url)
    for app in (before, after):
        app.get("/")(lambda: None)
    assert statuses(before, "/", "/") == [500, 500]
    assert statuses(after, "/", "/") == [200, 429]


def test_async_handlers(slowapi: Slowapi) -> None:
    """The middleware of slowapi answers without the app's handler where that is async."""
    from slowapi.errors import RateLimitExceeded  # noqa: PLC0415

    async def answer(request: Request, reason: object) -> JSONResponse:
        return JSONResponse("slow down", status_code=429)

    before, _ = slowapi(default_limits=["1/minute"])
    before.exception_handler(RateLimitExceeded)(answer)
    after = FastAPI()
    limits = [Limit(name="default", rate="1/minute", per=["endpoint", "ip"])]
    after.add_middleware(RateLimitMiddleware, settings=RateLimitSettings(limits=limits), on_refused=answer)
    for app, body in ((before, {"error": "Rate limit exceeded: 1 per 1 minute"}), (after, "slow down")):
        app.get("/")(lambda: None)
        with TestClient(app) as client:
            assert [client.get("/").json() for _ in range(2)] == [None, body]


def test_retry_after(slowapi: Slowapi) -> None:
    """Slowapi sends it with requests that are served too."""
    before, _ = slowapi(default_limits=["1/minute"], headers_enabled=True)
    after = ours(Limit(name="default", rate="1/minute", per=["endpoint", "token"]))
    for app, served in ((before, True), (after, False)):
        app.get("/")(lambda: None)
        with TestClient(app) as client:
            found = [client.get("/") for _ in range(2)]
        assert [each.status_code for each in found] == [200, 429]
        assert ["Retry-After" in each.headers for each in found] == [served, True]


def test_websockets_with_slowapi(slowapi: Slowapi) -> None:
    """It takes the decorator and fails at the handshake; here the handshake is limited."""
    before, limiter = slowapi()
    after = ours()
    for app, limited in ((before, limiter.limit("1/minute")), (after, limit("1/minute", per="token"))):

        @app.websocket("/ws")
        @limited
        async def ws(websocket: WebSocket) -> None:
            await websocket.accept()

    with pytest.raises(Exception, match="request"), TestClient(before) as client, client.websocket_connect("/ws"):
        pass
    with TestClient(after) as client:
        with client.websocket_connect("/ws"):
            pass
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
            pass
    assert denied.value.status_code == 429


def test_exempt_when(slowapi: Slowapi) -> None:
    """A key that is `None`: the limit does not apply to this request."""
    before, limiter = slowapi()

    def is_staff(request: Request) -> bool:
        return key_of(request) == "staff"

    @before.get("/")
    @limiter.limit("1/minute", exempt_when=is_staff)
    async def old(request: Request) -> None: ...

    after = ours()

    @after.get("/")
    @limit("1/minute", key=lambda request: None if is_staff(request) else key_of(request))
    async def new() -> None: ...

    for app in (before, after):
        assert statuses(app, "/", "/", **{"x-api-key": "staff"}) == [200, 200]
        assert statuses(app, "/", "/", **{"x-api-key": "other"}) == [200, 429]


def test_override_defaults(slowapi: Slowapi) -> None:
    """Without `default=True` a limit of the settings holds beside those of an endpoint."""
    before, limiter = slowapi(default_limits=["2/minute"])

    @before.get("/")
    @limiter.limit("9/minute", override_defaults=False)
    async def old(request: Request) -> None: ...

    after = ours(Limit(name="default", rate="2/minute", per=["endpoint", "token"]))

    @after.get("/")
    @limit("9/minute", per="token")
    async def new() -> None: ...

    for app in (before, after):
        assert statuses(app, "/", "/", "/") == [200, 200, 429]


def test_methods(slowapi: Slowapi) -> None:
    """A limit may hold for some methods only."""
    before, limiter = slowapi()

    @before.api_route("/", methods=["GET", "POST"])
    @limiter.limit("1/minute", methods=["POST"])
    async def old(request: Request) -> None: ...

    after = ours()

    @after.api_route("/", methods=["GET", "POST"])
    @limit("1/minute", per="token", methods="POST")
    async def new() -> None: ...

    for app in (before, after):
        with TestClient(app) as client:
            found = [client.request(method, "/").status_code for method in ("GET", "GET", "POST", "POST")]
        assert found == [200, 200, 200, 429]


def test_no_limits_at_all(slowapi: Slowapi) -> None:
    """As in the environments in which slowapi is not `enabled`."""
    before, _ = slowapi(default_limits=["1/minute"], enabled=False)
    after = ours(Limit(name="default", rate="1/minute"), exempt="*")
    for app in (before, after):
        app.get("/")(lambda: None)
        assert statuses(app, "/", "/") == [200, 200]


@pytest.fixture
def rate_limiter() -> Callable[..., Any]:
    """Return the dependency of fastapi-limiter 0.2 that the page of that package shows first."""
    needs_fastapi_limiter("0.2")
    from fastapi_limiter.depends import RateLimiter  # noqa: PLC0415
    from pyrate_limiter import Duration, Limiter, Rate  # noqa: PLC0415

    return lambda times: RateLimiter(Limiter(Rate(times, Duration.MINUTE)))


def test_one_bucket_for_all_callers(rate_limiter: Callable[..., Any]) -> None:
    """`RateLimiter(Limiter(Rate(…)))` limits all callers together, whoever the identifier says they are."""
    before = FastAPI()
    before.get("/", dependencies=[Depends(rate_limiter(1))])(lambda: None)
    together, apart = ours(), ours()
    together.get("/", dependencies=[Depends(limit("1/minute"))])(lambda: None)
    apart.get("/", dependencies=[Depends(limit("1/minute", per="token"))])(lambda: None)
    for app, other in ((before, 429), (together, 429), (apart, 200)):
        assert statuses(app, "/", **{"x-forwarded-for": "192.0.2.1", "x-api-key": "a"}) == [200]
        assert statuses(app, "/", **{"x-forwarded-for": "192.0.2.2", "x-api-key": "b"}) == [other]


def test_included_routers_with_fastapi_limiter(rate_limiter: Callable[..., Any]) -> None:
    """Where FastAPI keeps them as they are, each limited route of such an app answers 500."""
    before, after = FastAPI(), ours()
    for app, limited in ((before, rate_limiter(1)), (after, limit("1/minute"))):
        router = APIRouter(dependencies=[Depends(limited)])
        router.get("/a")(lambda: None)
        app.include_router(router)
    assert statuses(after, "/a", "/a") == [200, 429]
    if has_included_routers(before):
        assert statuses(before, "/a", "/a") == [500, 500]


def test_skip_limiter(rate_limiter: Callable[..., Any]) -> None:
    """`exempt` takes an endpoint out of the limit of its app."""
    from fastapi_limiter.decorators import skip_limiter  # noqa: PLC0415

    before = FastAPI(dependencies=[Depends(rate_limiter(1))])
    after = ours(app=FastAPI(dependencies=[Depends(limit("1/minute"))]))
    for app, skip in ((before, skip_limiter), (after, exempt)):

        @app.get("/health")
        @skip
        async def health() -> None: ...

        @app.get("/limited")
        async def limited() -> None: ...

        assert statuses(app, "/health", "/health", "/limited", "/limited") == [200, 200, 200, 429]


def test_websockets_in_an_app_with_a_limit(rate_limiter: Callable[..., Any]) -> None:
    """fastapi-limiter cannot serve them; here the limit of the app holds for their handshakes too."""
    before = FastAPI(dependencies=[Depends(rate_limiter(9))])
    after = ours(app=FastAPI(dependencies=[Depends(limit("9/minute"))]))
    for app in (before, after):

        @app.websocket("/ws")
        async def ws(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text("hello")

    with TestClient(after) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "hello"
    with pytest.raises(TypeError), TestClient(before) as client, client.websocket_connect("/ws"):
        pass


def test_the_body_of_the_default_callback(rate_limiter: Callable[..., Any]) -> None:
    """`detail` and the app's own handler for `HTTPException` give the same."""
    before, after = FastAPI(), FastAPI()
    before.get("/", dependencies=[Depends(rate_limiter(1))])(lambda: None)
    after.get("/", dependencies=[Depends(limit("1/minute", detail="Too Many Requests"))])(lambda: None)
    after.add_middleware(RateLimitMiddleware, on_refused="exception_handler")
    found = []
    for app in (before, after):
        with TestClient(app) as client:
            client.get("/")
            found.append(client.get("/"))
    assert [(each.status_code, each.json()) for each in found] == [(429, {"detail": "Too Many Requests"})] * 2
