"""The promise: a limit holds where it says: by default, except for some paths, under a route for any path, or by name."""

from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from ratelimit import (
    Concurrency,
    ConfigurationError,
    Identity,
    Limit,
    Limiter,
    Quota,
    RateLimitMiddleware,
    RateLimitSettings,
    ResponseStyle,
    limit,
    limiter_of,
)
from ratelimit.asgi.routing.endpoint_matcher import EndpointMatcher
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock

WHO = Identity(token="t")


def client_of(limiter: Limiter, *routes: Any) -> TestClient:
    app = Starlette(routes=list(routes))
    app.add_middleware(RateLimitMiddleware, limiter=limiter)
    return TestClient(app)


def limiter_for(store: Store, clock: ManualClock, **settings: Any) -> Limiter:
    return Limiter(RateLimitSettings(**settings), store, clock)


async def charged(request: Request) -> Response:
    """Answer with the policies that were charged."""
    return JSONResponse([each.policy for each in request.state.ratelimit.limits])


def test_a_default_limit_gives_way_to_an_endpoints_own() -> None:
    """To a decorator's, also a looser one, and to one of the settings that names the path; not to one for all paths."""

    @limit("1000/minute")
    async def own(request: Request) -> Response:
        return await charged(request)

    settings = RateLimitSettings(
        limits=[
            Limit(name="default", rate="10/minute", default=True),
            Limit(name="everywhere", rate="500/minute"),
            Limit(name="named", rate="900/minute", paths="/named"),
            Limit(name="writes", rate="5/minute", paths="/other", methods="POST"),
        ],
        quotas=[Quota(name="month", limit=10**6, period="month", paths="/quota")],
    )
    client = client_of(
        Limiter(settings),
        Route("/own", own),
        *(Route(path, charged, methods=["GET", "POST"]) for path in ("/named", "/other", "/quota")),
    )
    assert client.get("/own").json() == ["everywhere", "own"]
    assert client.get("/named").json() == ["everywhere", "named"]
    assert client.get("/other").json() == ["default", "everywhere"]
    assert client.post("/other").json() == ["everywhere", "writes"]
    assert client.get("/quota").json() == ["default", "everywhere", "month"]


def test_paths_after_an_exclamation_mark_are_left_out() -> None:
    """A wrong one fails as every wrong path does."""
    settings = RateLimitSettings(limits=[Limit(name="api", rate="9/minute", paths=["/v1/*", "!/v1/health"])])
    client = client_of(Limiter(settings), Route("/v1/health", charged), Route("/v1/{rest:path}", charged))
    assert client.get("/v1/health").json() == []
    assert client.get("/v1/agents").json() == ["api"]
    with pytest.raises(ValueError, match=r"paths\n.*is not a route template"):
        Limit(name="x", rate="1/minute", paths=["!v1"])


def test_under_a_route_for_any_path_the_patterns_fit_the_path_itself() -> None:
    """The gateway of the incident: one route serves all, and the settings tell its endpoints apart."""
    settings = RateLimitSettings(
        limits=[
            Limit(name="each", rate="2/minute", per="endpoint"),
            Limit(name="slow", rate="1/minute", paths="/v1/slow/*"),
            Limit(name="all-but-health", rate="90/minute", paths=["!/health"]),
        ],
        exempt=["/internal/*"],
        responses=[(["/v2/*"], ResponseStyle(headers=["ietf"]))],
    )
    client = client_of(Limiter(settings), Route("/{rest:path}", charged, methods=["GET", "POST"]))
    assert client.get("/v1/fast").json() == ["each", "all-but-health"]
    assert client.get("/v1/slow/1").json() == ["each", "slow", "all-but-health"]
    assert client.get("/v1/slow/2").status_code == 429
    assert client.get("/health").json() == ["each"]
    assert client.get("/internal/x").json() == []
    assert "ratelimit" in client.get("/v2/x").headers
    # `/v1/fast` has a counter of its own, although one route serves all of these.
    assert [client.get("/v1/fast").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("path", ["/static/%2e%2e/v1/chat", "//v1/chat", "/x/../v1/./chat"])
def test_no_spelling_of_a_path_leads_round_its_limits(path: str) -> None:
    """What is behind a gateway resolves dot segments and doubled slashes, so the patterns fit what it will serve."""
    settings = RateLimitSettings(limits=[Limit(name="chat", rate="1/minute", paths="/v1/*")], exempt=["/static/*"])
    limiter = Limiter(settings)
    app = Starlette(routes=[Route("/{rest:path}", charged)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter)
    client = TestClient(app)
    assert client.get("/v1/chat").status_code == 200
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": unquote(path), "headers": [], "root_path": ""}
    found = EndpointMatcher(app, limiter.resolver).find(scope)
    assert [policy.name for policy in limiter.resolver.policies_at(found).policies] == ["chat"]


def test_a_shadow_takes_no_defaults_place() -> None:
    """It refuses nothing: a new limit can be tried out beside the default."""
    settings = RateLimitSettings(
        limits=[
            Limit(name="default", rate="9/minute", default=True),
            Limit(name="tried", rate="1/minute", paths="/x", shadow=True),
        ]
    )
    client = client_of(Limiter(settings), Route("/x", charged))
    assert client.get("/x").json() == ["default", "tried"]


async def test_check_takes_the_limits_of_the_method() -> None:
    """Two functions on one path, and two of one name on two paths, each with its own cost."""

    def limited(rate: str, cost: int) -> Any:
        @limit(rate, cost=cost, name="create")
        async def create(request: Request) -> Response:
            return await charged(request)

        return create

    @limit("1/minute")
    async def post_only(request: Request) -> Response:
        return await charged(request)

    limiter = Limiter(RateLimitSettings())
    routes = [
        Route("/a", limited("100/minute", 1), methods=["GET"]),
        Route("/a", post_only, methods=["POST"]),
        Route("/b", limited("100/minute", 50), methods=["POST"]),
    ]
    EndpointMatcher(Starlette(routes=routes), limiter.resolver).read_routes()
    assert [each.limit for each in await limiter.limits(WHO, endpoint="/a")] == [100]
    decision = await limiter.check(WHO, method="POST", endpoint="/b", policies=["create"])
    assert decision.limits[0].remaining == 50


async def test_a_manual_policy_is_charged_by_its_name_alone(store: Store, clock: ManualClock) -> None:
    """By `consume`, `slot` and `check(policies=…)`, never by a request; all kinds."""
    limiter = limiter_for(
        store,
        clock,
        limits=[
            Limit(name="http", rate="9/minute"),
            Limit(name="mails", rate="2/minute", per="token", cost=2, manual=True),
        ],
        quotas=[Quota(name="rows", limit=5, period="month", per="token", manual=True)],
        concurrency=[Concurrency(name="jobs", limit=1, per="token", manual=True)],
    )
    assert [each.policy for each in (await limiter.check(WHO)).limits] == ["http"]
    assert (await limiter.consume("rows", WHO, 3)).allowed
    async with limiter.slot("jobs", WHO):
        assert not (await limiter.check(WHO, policies=["jobs"])).allowed
    both = await limiter.check(WHO, policies=["mails", "rows"])
    assert {each.policy: each.remaining for each in both.limits} == {"mails": 0, "rows": 1}
    assert not (await limiter.check(WHO, policies=["mails", "rows"])).allowed
    assert (await limiter.usage(WHO))[0].used == 4
    with pytest.raises(ConfigurationError, match="'unknown' is not one of"):
        await limiter.check(WHO, policies=["unknown"])


def test_the_messages_of_a_websocket_are_charged_in_one_line() -> None:
    """For the identity of its handshake, to a manual policy."""
    settings = RateLimitSettings(limits=[Limit(name="ws-messages", rate="2/minute", per="token", manual=True)])

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            decision = await limiter_of(websocket).message(websocket, "ws-messages")
            await websocket.send_text("ok" if decision.allowed else "slow down")

    client = client_of(Limiter(settings), WebSocketRoute("/ws", talk))

    def talk_as(token: str) -> list[str]:
        with client.websocket_connect("/ws", headers={"authorization": f"Bearer {token}"}) as session:
            answers = []
            for _ in range(3):
                session.send_text("hi")
                answers.append(session.receive_text())
            return answers

    assert talk_as("a") == ["ok", "ok", "slow down"]
    assert talk_as("b") == ["ok", "ok", "slow down"]


async def test_outside_of_the_middleware_both_helpers_say_so() -> None:
    """There is no limiter and no identity to find."""
    websocket = WebSocket({"type": "websocket", "headers": []}, receive=None, send=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has not passed a RateLimitMiddleware"):
        limiter_of(websocket)
    with pytest.raises(ConfigurationError, match="has not passed a RateLimitMiddleware"):
        await Limiter(RateLimitSettings()).message(websocket, "ws")


async def test_check_and_peek_see_what_http_sees(store: Store, clock: ManualClock) -> None:
    """Decorators and dependencies too, in the same counters, once the routes of the app are known."""

    @limit("3/minute", per="token")
    async def own(request: Request) -> Response:
        return PlainTextResponse("")

    limiter = limiter_for(store, clock, limits=[Limit(name="default", rate="1/minute", default=True)])
    app = Starlette(routes=[Route("/own/{id:int}", own)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter)
    first = await limiter.limits(WHO, endpoint="/own/{id}")
    assert [each.policy for each in first] == ["default"]
    app.middleware_stack = app.build_middleware_stack()
    middleware: Any = app.middleware_stack
    while not isinstance(middleware, RateLimitMiddleware):
        middleware = middleware.app
    middleware.endpoint_matcher.read_routes(app)
    assert (await limiter.check(WHO, endpoint="/own/{id}")).limits[0].policy == "own"
    assert [(each.policy, each.remaining) for each in await limiter.limits(WHO, endpoint="/own/{id}")] == [("own", 2)]
    assert (await limiter.peek(WHO, endpoint="/own/{id}", cost=2)).allowed
    assert not (await limiter.peek(WHO, endpoint="/own/{id}", cost=3)).allowed


async def test_a_cost_of_nothing_looks(store: Store, clock: ManualClock) -> None:
    """Nothing is charged, and what is left is told as it stands."""
    limiter = limiter_for(store, clock, limits=[Limit(name="a", rate="2/minute")])
    await limiter.check(WHO, cost=2)
    for _ in range(3):
        decision = await limiter.check(WHO, cost=0)
        assert (decision.allowed, decision.limits[0].remaining) == (True, 0)
    with pytest.raises(ConfigurationError, match="cost"):
        await limiter.check(WHO, cost=-1)
