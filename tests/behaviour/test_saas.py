"""The promise: the example of a whole service holds its limits under four servers, with three workers, on Redis."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import jwt
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from websockets.sync.client import connect

from examples.server import saas
from tests.support.redis_server import RedisServer
from tests.support.servers import SERVERS, Server, serving
from tests.support.waiting import pause


def token(user: str) -> dict[str, str]:
    return {"authorization": f"Bearer {jwt.encode({'sub': user}, saas.SECRET, 'HS256')}"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a table with many users, since each test needs users that were not refused yet."""
    path = tmp_path_factory.mktemp("saas") / "users.db"
    engine = create_engine(f"sqlite:///{path}")
    saas.Table.metadata.create_all(engine)
    numbered = [(f"{name}{n}", f"{org}{n}", plan) for n in range(10) for name, org, plan in saas.USERS]
    with Session(engine) as session, session.begin():
        session.add_all([saas.User(id=name, org=org, plan=plan) for name, org, plan in [*saas.USERS, *numbered]])
    engine.dispose()
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, redis_server: RedisServer, database: str) -> Iterator[Server]:
    with redis_server.client() as redis:  # Else its workers begin with the overrides of the server before.
        redis.flushall()
    # This machine is shared: a worker that waits too short decides by itself, and is not exact.
    environment = {"STORE": redis_server.url, "DATABASE": database, "STORE_TIMEOUT": "5"}
    with serving(request.param, "examples.server.saas:app", workers=3, **environment) as server:
        yield server


@pytest.fixture
def client(server: Server, redis_server: RedisServer) -> Iterator[httpx2.Client]:
    """Return a client that opens a connection for each request, so that all workers get some."""
    with redis_server.client() as redis:
        redis.flushall()
    limits = httpx2.Limits(max_keepalive_connections=0)
    with httpx2.Client(base_url=server.url, timeout=30, limits=limits) as client:
        yield client


def statuses(client: httpx2.Client, count: int, method: str, path: str, **options: Any) -> Counter[int]:
    return Counter(client.request(method, path, **options).status_code for _ in range(count))


def test_a_user_has_one_limit_in_all_workers(client: httpx2.Client) -> None:
    """Sixty a minute and a burst of a quarter more; another user, and one of a larger plan, have their own."""
    assert statuses(client, 80, "GET", "/v1/agents", headers=token("ann1")) == {200: 75, 429: 5}
    assert statuses(client, 5, "GET", "/v1/agents", headers=token("bob1")) == {200: 5}
    assert statuses(client, 80, "GET", "/v1/agents", headers=token("eve1")) == {200: 80}


def test_invented_tokens_are_answered_by_the_app(client: httpx2.Client) -> None:
    """With 401, and counted by their address."""
    for invented in ("nonsense", jwt.encode({"sub": "ann"}, "another secret, of 32 bytes or more", "HS256")):
        response = client.get("/v1/agents", headers={"authorization": f"Bearer {invented}"})
        assert (response.status_code, response.headers["x-ratelimit-scope"]) == (401, "ip")


def test_runs_have_two_limits_of_their_own(client: httpx2.Client) -> None:
    """Shared by the organization."""
    assert statuses(client, 2, "POST", "/v1/agents/a/runs", headers=token("ann3")) == {202: 2}
    refused = client.post("/v1/agents/b/runs", headers=token("bob3"))
    assert (refused.status_code, refused.json()["policy"]) == (429, "run")


def test_streamed_tokens_are_settled(client: httpx2.Client) -> None:
    """What was really used is counted, and not the estimate; the organization's tokens are shared by its users."""
    prompt = {"prompt": " ".join(["word"] * 30)}
    for user in ("ann4", "bob4"):
        assert client.post("/v1/completions", json=prompt, headers=token(user)).text == "WORD " * 30
    endpoint = {"endpoint": "/v1/completions", "method": "POST"}
    found = client.post("/internal/usage", params=endpoint, json={"org": "acme4"}, headers=token("ops4"))
    assert {each["policy"]: each["remaining"] for each in found.json()["limits"]}["tokens"] == 940


def test_uploads_have_a_monthly_quota_of_bytes(client: httpx2.Client) -> None:
    """Used up, it is 403 and no 429; the caller reads it without being charged."""
    assert statuses(client, 5, "POST", "/v1/files", content=b"x" * 1000, headers=token("ann5")) == {201: 5}
    refused = client.post("/v1/files", content=b"x", headers=token("bob5"))
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "retry-after" not in refused.headers
    (quota,) = client.get("/v1/quotas", headers=token("bob5")).json()
    assert (quota["used"], quota["remaining"], quota["unit"]) == (5000, 0, "bytes")
    assert client.get("/v1/agents", headers=token("bob5")).status_code == 200


def test_messages_of_a_websocket_are_counted(client: httpx2.Client) -> None:
    """Each one, in whichever worker the socket is."""
    url = str(client.base_url.join("/v1/live")).replace("http", "ws")
    replies = []
    for _ in range(2):
        with connect(url, additional_headers=token("ann6")) as socket:
            for number in range(3):
                socket.send(str(number))
                replies.append(socket.recv())
    assert replies[:5] == ["0", "1", "2", "0", "1"]
    assert str(replies[5]).startswith("slow down for")


def test_operators_raise_a_limit_in_all_workers(client: httpx2.Client) -> None:
    """Within two seconds; others are forbidden."""
    wanted = {"policy": "user", "key": {"token": "ann7"}, "rate": "200/minute"}
    assert client.put("/internal/overrides", json=wanted, headers=token("ann7")).status_code == 403
    assert statuses(client, 80, "GET", "/v1/agents", headers=token("ann7")) == {200: 75, 429: 5}
    assert client.put("/internal/overrides", json=wanted, headers=token("ops7")).json()[0]["by"] == "ops7"
    served = 0
    for _ in range(500):  # A worker that has not read it yet still refuses.
        if client.get("/v1/agents", headers=token("ann7")).status_code == 200:
            served += 1
        else:
            pause()
        if served == 100:  # More than a minute has without the override.
            break
    assert served == 100
