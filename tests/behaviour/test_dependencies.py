"""The promise: `Depends(limit(…))` of FastAPI limits a route, a router or an app, in the same step as everything else."""

import json
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from ratelimit import (
    ConfigurationError,
    Decision,
    Limit,
    MemoryStore,
    RateLimitMiddleware,
    RateLimitSettings,
    limit,
)
from ratelimit.limiter import Limiter
from ratelimit.stores.messages import StoreReply, StoreRequest


class CountingStore(MemoryStore):
    """Records what each call charges."""

    def __init__(self) -> None:
        super().__init__()
        self.charged: list[list[str]] = []

    def run(self, request: StoreRequest) -> StoreReply:
        self.charged.append([charge.limit.policy for charge in request.charges])
        return super().run(request)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def client_of(app: FastAPI, store: Any) -> TestClient:
    settings = RateLimitSettings(limits=[Limit(name="all", rate="1000/minute")])
    app.add_middleware(RateLimitMiddleware, limiter=Limiter(settings, store))
    return TestClient(app)


def statuses(client: TestClient, path: str, count: int, **options: Any) -> list[int]:
    return [client.get(path, **options).status_code for _ in range(count)]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a dependency that FastAPI sends to its thread pool."""

    async def fail(function: Any, *args: Any, **kwargs: Any) -> Any:
        msg = f"{function} runs in a thread"
        raise AssertionError(msg)

    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", fail)


def test_a_route_is_limited_by_what_it_depends_on(store: CountingStore) -> None:
    """Counted by its `per`, and charged in one call with the limits of the settings and of decorators."""
    app = FastAPI()

    @app.get("/answer", dependencies=[Depends(limit("2/minute", per="token"))])
    @limit("100/minute", name="decorated")
    async def answer() -> str:
        return "42"

    client = client_of(app, store)
    assert statuses(client, "/answer", 3, headers={"authorization": "Bearer a"}) == [200, 200, 429]
    assert statuses(client, "/answer", 1, headers={"authorization": "Bearer b"}) == [200]
    assert store.charged == [["all", "answer", "decorated"]] * 4


def test_a_parameter_is_the_decision(store: CountingStore) -> None:
    """With the limits as they stand after this request; the schema of the API knows nothing of it."""
    app = FastAPI()

    @app.get("/left")
    async def left(decision: Annotated[Decision, Depends(limit("5/minute", name="own"))]) -> int:
        (own,) = [each for each in decision.limits if each.policy == "own"]
        return own.remaining

    client = client_of(app, store)
    assert [client.get("/left").json() for _ in range(2)] == [4, 3]
    operation = client.get("/openapi.json").json()["paths"]["/left"]["get"]
    assert "parameters" not in operation
    assert "requestBody" not in operation


@pytest.mark.parametrize("where", ["router", "include", "app"])
def test_the_routes_of_a_router_or_an_app_count_apart(store: CountingStore, where: str) -> None:
    """As if each of them had the dependency itself, also with a prefix and in a router within a router."""
    shared = [Depends(limit("2/minute"))]
    app = FastAPI(dependencies=shared if where == "app" else None)
    router = APIRouter(prefix="/v1", dependencies=shared if where == "router" else None)

    @router.get("/a")
    async def a() -> None: ...

    @router.get("/b")
    async def b() -> None: ...

    outer = APIRouter()
    outer.include_router(router, dependencies=shared if where == "include" else None)
    app.include_router(outer, prefix="/api")
    client = client_of(app, store)
    assert statuses(client, "/api/v1/a", 3) == [200, 200, 429]
    assert statuses(client, "/api/v1/b", 3) == [200, 200, 429]
    assert store.charged[0] == ["all", "a"]


def test_a_dependency_of_a_dependency_is_found_once(store: CountingStore) -> None:
    """FastAPI calls it once for a request, however many depend on it; so it is charged once."""
    shared = limit("9/minute", name="shared")

    async def user(_: Annotated[Decision, Depends(shared)]) -> str:
        return "ann"

    app = FastAPI(dependencies=[Depends(shared)])

    @app.get("/me")
    async def me(name: Annotated[str, Depends(user)]) -> str:
        return name

    client = client_of(app, store)
    assert client.get("/me").json() == "ann"
    assert store.charged == [["all", "shared"]]


def test_a_websocket_is_limited_at_its_handshake(store: CountingStore) -> None:
    """As every other limit of a WebSocket route."""
    app = FastAPI()

    @app.websocket("/ws", dependencies=[Depends(limit("1/minute"))])
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    client = client_of(app, store)
    with client.websocket_connect("/ws"):
        pass
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
        pass
    assert denied.value.status_code == 429
    assert store.charged[0] == ["all", "ws"]


def test_several_rates_in_one_text_all_hold(store: CountingStore) -> None:
    """For a decorator and for a dependency, each with a policy of its own."""
    app = FastAPI()

    @app.get("/a")
    @limit("3/minute;2/hour")
    async def a() -> None: ...

    @app.get("/b", dependencies=[Depends(limit("1/second;5/day", name="b-limit"))])
    async def b() -> None: ...

    client = client_of(app, store)
    assert statuses(client, "/a", 3) == [200, 200, 429]
    client.get("/b")
    assert store.charged[0] == ["all", "a", "a-2"]
    assert store.charged[-1] == ["all", "b-limit", "b-limit-2"]


def test_without_the_middleware_the_first_call_names_the_missing_line() -> None:
    """Nothing else of this package runs then."""
    app = FastAPI()

    @app.get("/a", dependencies=[Depends(limit("1/minute"))])
    async def a() -> None: ...

    with pytest.raises(ConfigurationError, match=r"app\.add_middleware\(RateLimitMiddleware"):
        TestClient(app).get("/a")


@pytest.mark.parametrize("target", [APIRouter(), FastAPI()])
def test_a_decorator_on_a_router_or_an_app_says_what_to_write(target: Any) -> None:
    """It would limit nothing there."""
    with pytest.raises(ConfigurationError, match=r"dependencies=\[Depends\(limit\('5/minute'\)\)\]"):
        limit("5/minute")(target)


def test_a_wrong_rate_fails_where_it_is_written() -> None:
    """In each of several rates too."""
    for rate in ("often", "5/minute;often", "5/minute;"):
        with pytest.raises(ConfigurationError, match="rate"):
            limit(rate)


def test_the_limit_of_a_dependency_is_shared_by_workers(redis_url: str) -> None:
    """It counts in the store of the settings, as all others do."""

    def worker() -> TestClient:
        app = FastAPI()

        @app.get("/a", dependencies=[Depends(limit("3/minute", name="dependency"))])
        async def a() -> None: ...

        app.add_middleware(RateLimitMiddleware, settings=RateLimitSettings(store=redis_url, store_timeout=10))
        return TestClient(app)

    with worker() as one, worker() as other:
        found = [client.get("/a").status_code for _ in range(2) for client in (one, other)]
        assert found == [200, 200, 200, 429]
        assert json.loads(one.get("/a").content)["status"] == 429


def test_a_preflight_of_a_limited_route_is_served_uncounted(store: CountingStore) -> None:
    """It has no limits, and the dependency has a decision all the same."""
    app = FastAPI()

    @app.api_route("/o", methods=["OPTIONS", "GET"], dependencies=[Depends(limit("1/minute"))])
    async def o() -> None: ...

    headers = {"origin": "https://a.example", "access-control-request-method": "GET"}
    assert client_of(app, store).options("/o", headers=headers).status_code == 200
    assert store.charged == []
