"""The promise of the migration pages: each app answers as before, with the same statuses and bodies."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from ratelimit import LimitExceeded
from ratelimit.testing import ManualClock
from tests.support.migration import (
    FOLDER,
    Answer,
    Step,
    answers,
    load,
    move_limits,
    needs_fastapi_limiter,
    refused,
    responses,
)
from tests.support.uvicorn_server import uvicorn

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = {
    "migrate-from-slowapi.md": ["slowapi_before", "slowapi_after"],
    "migrate-from-fastapi-limiter.md": [
        "fastapi_limiter_before",
        "fastapi_limiter_after",
        "fastapi_limiter_0_1_before",
    ],
}
ANN, BOB = "key-of-ann", "key-of-bob"

SLOWAPI: list[Step] = [
    (12, "GET /health", None),  # exempt
    (5, "GET /reports/7", ANN),  # the default limit counts a route, whatever its parameters
    (5, "GET /reports/8", ANN),
    (3, "GET /reports/7", BOB),  # for each caller
    (9, "GET /reports/7", None),  # for callers without a key by their address
    (2, "GET /reports/x", BOB),
    (8, "GET /search?q=a", ANN),  # pro: 6
    (5, "GET /search?q=a", BOB),  # 3
    (3, "GET /items?id=1&id=2&id=3&id=4", ANN),  # 8 of 10 units
    (12, "GET /items?id=1", BOB),
    (3, "GET /invoices", ANN),  # shared by two routes
    (3, "POST /payments", ANN),
    (1, "GET /invoices", ANN),
    (1, "POST /payments", BOB),
    (2, "POST /login", ANN),  # by address, whatever the key
    (3, "POST /login", BOB),
    (3, "GET /none", ANN),
    (1, "GET /health", ANN),
]
SLOWAPI_A_MINUTE_LATER: list[Step] = [
    (9, "GET /reports/7", ANN),
    (7, "GET /search?q=a", ANN),
    (11, "GET /items?id=1", BOB),
    (5, "POST /payments", ANN),
    (3, "POST /login", ANN),  # 2 of 5 in the hour are left
]
SLOWAPI_LIMITED = {
    "GET /reports/8",
    "GET /reports/7",
    "GET /search?q=a",
    "GET /items?id=1&id=2&id=3&id=4",
    "GET /items?id=1",
    "POST /payments",
    "GET /invoices",
    "POST /login",
}

FASTAPI_LIMITER: list[Step] = [
    (12, "GET /health", None),
    (7, "GET /messages", ANN),
    (6, "GET /messages", BOB),
    (6, "GET /messages", None),
    (2, "GET /messages/1", ANN),  # a route has one counter, whatever its parameters
    (4, "GET /messages/2", ANN),
    (1, "GET /messages/1", BOB),
    (5, "POST /messages", ANN),  # 3 for each caller
    (4, "POST /messages", BOB),  # and 5 for all of them
    (2, "GET /messages/x", None),
    (3, "GET /none", ANN),
]
FASTAPI_LIMITER_LIMITED = {"GET /messages", "GET /messages/2", "POST /messages"}


def served(app: str, steps: list[Step]) -> list[Answer]:
    """Return what an app answers under a real uvicorn."""
    with uvicorn({}, app=f"examples.migration.{app}:app") as url, httpx2.Client(base_url=url, timeout=30) as client:
        return answers(client, steps)


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(snippet: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(snippet, "page", "exec"), names)
    return names


def on_redis(app: Any, url: str) -> Any:
    """Let an app count in this Redis, however slow this machine is."""
    options = app.user_middleware[0].kwargs
    options["settings"] = options["settings"].model_copy(update={"store": url, "store_timeout": 10})
    return app


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_the_apps_as_they_are(page: str) -> None:
    """The code on the page equals the files, which the tests below run."""
    files = [(FOLDER / f"{name}.py").read_text() for name in PAGES[page]]
    assert snippets(page)[: len(files)] == files


def test_the_slowapi_app_over_two_windows(
    monkeypatch: pytest.MonkeyPatch, freeze_limits: Callable[..., ManualClock]
) -> None:
    """Each limit refuses in both apps, and admits again a minute later, where the limit of an hour still holds."""
    pytest.importorskip("slowapi")
    before, after = load("slowapi_before").app, load("slowapi_after").app
    clock = freeze_limits(after)
    move_limits(monkeypatch, clock)
    found = []
    for app in (before, after):
        clock.now = ManualClock().now
        with TestClient(app) as client:
            first = answers(client, SLOWAPI)
            clock.advance(seconds=61)
            found.append((first, answers(client, SLOWAPI_A_MINUTE_LATER)))
    assert found[0] == found[1]
    first, later = found[1]
    assert refused(first) == SLOWAPI_LIMITED
    assert [(status, body) for asked, status, body in later if asked == "POST /login"] == [
        (200, '{"login":"ok"}'),
        (200, '{"login":"ok"}'),
        (429, '{"error":"Too many logins","limit":5,"seconds":3600}'),
    ]


def test_the_slowapi_app_on_redis(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """So it is over HTTP, with a real Redis."""
    pytest.importorskip("slowapi")
    monkeypatch.setenv("STORE", redis_url)
    before = served("slowapi_before", SLOWAPI)
    with TestClient(on_redis(load("slowapi_after").app, redis_url)) as client:
        assert answers(client, SLOWAPI) == before
    monkeypatch.delenv("STORE")
    assert served("slowapi_after", SLOWAPI) == before
    assert refused(before) == SLOWAPI_LIMITED


def test_the_headers_of_the_slowapi_app() -> None:
    """Of the same names, with the same numbers; each refusal says when to try again."""
    pytest.importorskip("slowapi")
    of_one_limit = [each for each in SLOWAPI if each[1].split("?")[0].split("/")[1] in ("reports", "items", "invoices")]
    found = []
    for name in ("slowapi_before", "slowapi_after"):
        with TestClient(load(name).app) as client:
            found.append([response for _, response in responses(client, of_one_limit)])
    for before, after in zip(*found, strict=True):
        for field in ("X-RateLimit-Limit", "X-RateLimit-Remaining"):
            assert before.status_code == 429 or before.headers[field] == after.headers[field]
        assert ("Retry-After" in after.headers) == (after.status_code == 429)


@pytest.mark.parametrize(
    ("series", "before"), [("0.1", "fastapi_limiter_0_1_before"), ("0.2", "fastapi_limiter_before")]
)
def test_the_fastapi_limiter_app(series: str, before: str, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """Each limit refuses in both apps: on a route, on a route with parameters, and two on one route."""
    needs_fastapi_limiter(series)
    monkeypatch.setenv("STORE", redis_url)
    expected = served(before, FASTAPI_LIMITER)
    with TestClient(on_redis(load("fastapi_limiter_after").app, redis_url)) as client:
        assert answers(client, FASTAPI_LIMITER) == expected
    monkeypatch.delenv("STORE")
    assert served("fastapi_limiter_after", FASTAPI_LIMITER) == expected
    assert refused(expected) == FASTAPI_LIMITER_LIMITED


@pytest.mark.parametrize(
    ("series", "before"), [("0.1", "fastapi_limiter_0_1_before"), ("0.2", "fastapi_limiter_before")]
)
def test_the_messages_of_its_websocket(
    series: str, before: str, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    """Each caller may send three in a minute, over all of its connections."""
    needs_fastapi_limiter(series)
    monkeypatch.setenv("STORE", redis_url)
    expected = chats(load(before).app)
    assert chats(on_redis(load("fastapi_limiter_after").app, redis_url)) == expected
    assert expected == [
        ["you said 0", "you said 1"],
        ["you said 0", "you said 1"],
        ["you said 0", "slow down"],
        ["you said 0", "slow down"],
    ]


def chats(app: Any) -> list[list[str]]:
    with TestClient(app) as client:
        return [chat(client, key) for key in (ANN, BOB, ANN, BOB)]


def chat(client: TestClient, key: str) -> list[str]:
    """Send two messages over a new connection."""
    with client.websocket_connect("/chat", headers={"x-api-key": key}) as socket:
        found = []
        for number in range(2):
            socket.send_text(str(number))
            found.append(socket.receive_text())
        return found


def test_the_body_of_slowapis_own_handler() -> None:
    """The snippet of the page answers as slowapi's `_rate_limit_exceeded_handler` does."""
    pytest.importorskip("slowapi")
    from slowapi import Limiter, _rate_limit_exceeded_handler  # noqa: PLC0415
    from slowapi.errors import RateLimitExceeded  # noqa: PLC0415
    from slowapi.util import get_remote_address  # noqa: PLC0415

    before = FastAPI()
    before.state.limiter = Limiter(key_func=get_remote_address)
    before.exception_handler(RateLimitExceeded)(_rate_limit_exceeded_handler)

    @before.get("/hello")
    @before.state.limiter.limit("5/minute")
    def hello(request: Request) -> str:
        return "hello"

    found = []
    for app in (before, run(snippets("migrate-from-slowapi.md")[2])["app"]):
        with TestClient(app) as client:
            found.append(answers(client, [(6, "GET /hello", None)]))
    assert found[0] == found[1]
    assert found[1][-1] == ("GET /hello", 429, '{"error":"Rate limit exceeded: 5 per 1 minute"}')


def test_a_context_of_messages() -> None:
    """The snippet of the page counts each room apart, as `context_key` does."""
    app = run(snippets("migrate-from-fastapi-limiter.md")[3])["app"]
    with TestClient(app) as client, client.websocket_connect("/rooms") as socket:
        found = []
        for room in ("a", "a", "b", "a"):
            socket.send_text(room)
            found.append(socket.receive_text())
    assert found == ["sent", "slow down", "sent", "slow down"]


def test_the_recipe_for_limits() -> None:
    """It charges several units, tells the wait and what is left."""
    names = run(snippets("migrate-from-others.md")[0])
    assert names["send"]("acme", ["a"] * 4) == 0
    assert names["left"]("acme") == 6
    assert 30 < names["send"]("acme", ["a"] * 7) < 61
    assert (names["left"]("acme"), names["left"]("other")) == (6, 10)


def test_the_recipe_for_flask() -> None:
    """Under a WSGI server: a default, a limit of one path, a shared one, and one that is exempt."""

    def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    app = run(snippets("migrate-from-others.md")[1])["limited"](hello)
    with httpx2.Client(transport=httpx2.WSGITransport(app), base_url="http://server") as client:
        asked = ["/", "/", "/", "/", "/slow", "/slow", "/billing/1", "/billing/2", "/billing/3", *["/ping"] * 5]
        found = [client.get(path) for path in asked]
    assert [each.status_code for each in found] == [200, 200, 200, 429, 200, 429, 200, 200, 429] + [200] * 5
    refusal = found[3]
    assert refusal.text == "Too Many Requests"
    assert 30 < int(refusal.headers["Retry-After"]) <= 61


def test_the_recipe_for_django() -> None:
    """The decorator counts a view by address, and its error says when to try again."""
    login = run(snippets("migrate-from-others.md")[2])["login"]
    ann, bob = (SimpleNamespace(META={"REMOTE_ADDR": address}) for address in ("192.0.2.1", "192.0.2.2"))
    assert [login(ann) for _ in range(5)] == ["welcome"] * 5
    with pytest.raises(LimitExceeded, match="login") as refused_login:
        login(ann)
    assert 30 < refused_login.value.decision.retry_after < 61
    assert login(bob) == "welcome"
