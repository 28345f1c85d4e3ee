"""Cases that every response must get right, over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Decision, Identity, Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import STARLETTE, by_headers, limiter_for

Limited = Callable[..., TestClient]

TOKEN = {"name": "token", "rate": "5/minute", "per": ["token"]}
ORG = {"name": "org", "rate": "3/minute", "per": ["org"]}
WIDE = {"name": "token", "rate": "1000/minute", "per": ["token"]}


def left(response: Any) -> int:
    return int(response.headers["x-ratelimit-remaining"])


def test_a_client_that_waits_for_retry_after_is_admitted(limited: Limited, clock: ManualClock) -> None:
    """Waiting for `Retry-After`, in whole seconds and never 0, is enough."""
    client = limited(limits=[{"name": "t", "rate": "2/10 seconds", "per": "token"}])
    client.get("/")
    clock.advance(ms=300)
    client.get("/")
    refused = client.get("/")
    assert refused.status_code == 429
    clock.advance(seconds=int(refused.headers["retry-after"]))
    assert client.get("/").is_success


def test_the_longest_wait_is_reported_and_both_are_violated(limited: Limited) -> None:
    """If a token and its organization are over their limits, all headers describe the limit with the longer wait."""
    long = {"name": "org", "rate": "2/hour", "per": ["org"]}
    short = {"name": "token", "rate": "2/minute", "per": ["token"]}
    client = limited(limits=[short, long])
    for _ in range(2):
        client.get("/")
    refused = client.get("/")
    assert refused.json()["violated-policies"] == ["token", "org"]
    assert (refused.headers["x-ratelimit-scope"], refused.headers["x-ratelimit-limit"]) == ("org", "2")
    assert refused.headers["retry-after"] == str(refused.json()["retry_after"]) == "3601"
    assert "3601 seconds" in refused.json()["detail"]


def test_a_decorator_and_settings_on_one_route_charge_once_each(limited: Limited) -> None:
    """A request to a decorated route takes one unit of the decorator's limit and one of the settings' limit."""

    @limit("10/minute", per="token")
    async def both(request: Request) -> Response:
        decision: Decision = request.state.ratelimit
        return JSONResponse({one.policy: one.remaining for one in decision.limits})

    client = limited(limits=[TOKEN], routes=[Route("/both", both)])
    assert client.get("/both").json() == {"token": 4, "both": 9}
    assert client.get("/both").json() == {"token": 3, "both": 8}


def test_methods_have_counters_of_their_own_and_head_counts_as_get(limited: Limited) -> None:
    """GET and POST are counted apart; HEAD counts as GET and gets the same headers without a body."""
    reads = {"name": "reads", "rate": "5/minute", "per": "token", "methods": ["GET"]}
    writes = {"name": "writes", "rate": "2/minute", "per": "token", "methods": ["POST"]}
    client = limited(limits=[reads, writes])
    assert [left(client.get("/")), left(client.head("/")), left(client.post("/"))] == [4, 3, 1]
    for _ in range(3):
        client.get("/")
    get, head = client.get("/"), client.head("/")
    assert (head.status_code, head.content) == (429, b"")
    assert dict(head.headers) == dict(get.headers)
    assert int(get.headers["content-length"]) == len(get.content)


def test_the_keys_of_404s_are_bounded(clock: ManualClock) -> None:
    """A scan of invented paths and methods creates one key."""
    store = MemoryStore(clock=clock)
    settings = RateLimitSettings.model_validate(
        {"limits": [{"name": "e", "rate": "9999/minute", "per": ["endpoint", "token"]}]}
    )
    app = RateLimitMiddleware(FastAPI(), limiter=Limiter(settings, store, clock), identify=by_headers)
    client = TestClient(app, headers={"x-token": "t"})
    with client:
        for n in range(50):
            assert client.request("BREW" if n % 2 else "GET", f"/none/{n}").status_code == 404
    assert len(store) == 1


def test_tokens_of_one_organization_share_its_limit_only(limited: Limited) -> None:
    """A client that changes its token stays under its organization's limit."""
    client = limited(limits=[TOKEN, ORG])
    responses = [client.get("/", headers={"x-token": f"t{n}"}) for n in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert responses[3].json()["scope"] == "org"


def test_a_granted_rate_wins_over_the_plan_and_the_rate(limited: Limited) -> None:
    """`Identity.rates` takes precedence over the plan, and the plan over the policy's own rate."""
    client = limited(limits=[{**TOKEN, "plans": {"pro": "50/minute", "free": None}}])
    headers = {"x-plan": "pro", "x-token": "other"}
    assert client.get("/").headers["x-ratelimit-limit"] == "5"
    assert client.get("/", headers=headers).headers["x-ratelimit-limit"] == "50"
    assert client.get("/", headers={**headers, "x-rate": "7/minute"}).headers["x-ratelimit-limit"] == "7"
    assert "x-ratelimit-limit" not in client.get("/", headers={"x-plan": "free"}).headers


def test_a_plan_change_within_a_window_keeps_its_usage(limited: Limited) -> None:
    """An upgrade raises the limit at once, and the requests of the window still count."""
    client = limited(limits=[{**TOKEN, "plans": {"pro": "500/minute"}}])
    for _ in range(5):
        client.get("/")
    assert client.get("/").status_code == 429
    assert left(client.get("/", headers={"x-plan": "pro"})) == 500 - 6


@pytest.mark.parametrize("rate", ["0/minute", "1/minute", "999999999999999/minute"])
def test_limits_of_0_of_1_and_of_15_digits(limited: Limited, rate: str) -> None:
    """A limit of 0 refuses every request and gives no wait; a limit of 15 digits is exact."""
    client = limited(limits=[TOKEN])
    responses = [client.get("/", headers={"x-rate": rate}) for _ in range(2)]
    number = int(rate.split("/", maxsplit=1)[0])
    assert [response.headers["x-ratelimit-limit"] for response in responses] == [str(number)] * 2
    assert [response.is_success for response in responses] == [number >= 1, number >= 2]
    assert left(responses[1]) == max(0, number - 2)
    assert ("retry-after" in responses[1].headers) == (number == 1)
    assert "x-ratelimit-reset" in responses[1].headers


def test_browsers_get_problem_details_too(limited: Limited) -> None:
    """`Accept: text/html` does not change the response."""
    client = limited(limits=[{**TOKEN, "rate": "1/minute"}])
    client.get("/")
    assert client.get("/", headers={"accept": "text/html"}).headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("plans", [{"x-plan": "big"}])
def test_a_cost_that_never_fits_has_no_retry_after(limited: Limited, plans: dict[str, str]) -> None:
    """A request that costs more than the limit can ever admit is refused without `Retry-After`."""
    client = limited(limits=[{**TOKEN, "cost": 4, "plans": {"big": "3/minute"}}])
    refused = client.get("/", headers=plans)
    assert (refused.status_code, refused.json()["retry_after"]) == (429, None)
    assert "retry-after" not in refused.headers
    assert "can ever admit" in refused.json()["detail"]


# Responses of the app itself


def app_routes(tmp_path: Path) -> list[Route]:
    async def chunks() -> Any:
        for n in range(3):
            yield f"chunk {n};"

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks())

    async def file(request: Request) -> Response:
        return FileResponse(tmp_path / "file.txt")

    async def empty(request: Request) -> Response:
        return Response(status_code=int(request.path_params["status"]))

    async def redirect(request: Request) -> Response:
        return RedirectResponse("/stream", status_code=307)

    async def own(request: Request) -> Response:
        return Response(status_code=503, headers={"Retry-After": "7", "X-RateLimit-Limit": "99"})

    async def crash(request: Request) -> Response:
        raise ZeroDivisionError

    (tmp_path / "file.txt").write_text("from a file")
    return [
        Route("/stream", stream),
        Route("/file", file),
        Route("/empty/{status:int}", empty),
        Route("/redirect", redirect),
        Route("/own", own),
        Route("/crash", crash),
    ]


def test_streaming_and_files_pass_through(limited: Limited, tmp_path: Path) -> None:
    """Bodies arrive whole, with the rate-limit headers."""
    client = limited(limits=[WIDE], routes=app_routes(tmp_path))
    stream, file = client.get("/stream"), client.get("/file")
    assert (stream.text, file.text) == ("chunk 0;chunk 1;chunk 2;", "from a file")
    assert "x-ratelimit-limit" in stream.headers
    assert "x-ratelimit-limit" in file.headers
    if STARLETTE >= (0, 39):  # Before, files had no ranges.
        assert client.get("/file", headers={"range": "bytes=0-3"}).text == "from"


@pytest.mark.parametrize("path", ["/empty/204", "/empty/304", "/empty/404", "/empty/500", "/redirect", "/none"])
def test_every_response_of_the_app_carries_the_headers(limited: Limited, tmp_path: Path, path: str) -> None:
    """Responses with an empty body, redirects and the app's own errors carry them too."""
    client = limited(limits=[WIDE], routes=app_routes(tmp_path))
    assert left(client.get(path, follow_redirects=False)) == 999


def test_header_fields_of_the_app_are_never_repeated(limited: Limited, tmp_path: Path) -> None:
    """If the app sets `Retry-After` or `X-RateLimit-*` itself, its values are sent."""
    style = {"retry_after": "exhausted"}
    client = limited(limits=[{**WIDE, "rate": "1/minute"}], routes=app_routes(tmp_path), response=style)
    response = client.get("/own")
    assert response.headers.get_list("retry-after") == ["7"]
    assert response.headers.get_list("x-ratelimit-limit") == ["99"]
    assert "x-ratelimit-remaining" not in response.headers


def test_redirects_do_not_report_an_exhausted_limit(limited: Limited, tmp_path: Path) -> None:
    """`r=0` and `Retry-After` are left out of a 3xx: a client would wait before following it."""
    style = {"retry_after": "exhausted", "headers": ["x-ratelimit", "ietf"]}
    client = limited(limits=[{**WIDE, "rate": "1/minute"}], routes=app_routes(tmp_path), response=style)
    response = client.get("/redirect", follow_redirects=False)
    assert response.headers["ratelimit-policy"] == '"token";q=1;w=60'
    assert "ratelimit" not in response.headers
    assert "retry-after" not in response.headers


def test_an_exception_of_the_app_is_raised_and_counted(limited: Limited, tmp_path: Path) -> None:
    """The limiter neither hides an exception of the app nor fails to count its request."""
    client = limited(limits=[WIDE], routes=app_routes(tmp_path))
    with pytest.raises(ZeroDivisionError):
        client.get("/crash")
    assert left(client.get("/stream")) == 998


# CORS


def test_preflights_are_not_counted_but_other_options_are(limited: Limited) -> None:
    """OPTIONS with Origin and Access-Control-Request-Method passes uncounted and without rate-limit headers."""
    client = limited(limits=[TOKEN])
    preflight = {"origin": "https://a.example", "access-control-request-method": "GET"}
    assert "x-ratelimit-limit" not in client.options("/", headers=preflight).headers
    assert left(client.options("/")) == 4


def test_cors_inside_the_limiter_is_logged_once(caplog: pytest.LogCaptureFixture, clock: ManualClock) -> None:
    """A refusal would lack the CORS headers: the wrong order of middlewares, and no other, is one warning."""

    def serve(*names: str) -> None:
        app = FastAPI()
        cors = Middleware(CORSMiddleware, allow_origins=["*"])
        ours = Middleware(RateLimitMiddleware, limiter=limiter_for({"limits": [TOKEN]}, clock), identify=by_headers)
        app.user_middleware[:] = [cors if name == "cors" else ours for name in names]
        with TestClient(app) as client:
            client.get("/"), client.get("/")

    serve("cors", "limiter")
    assert caplog.messages == []
    serve("limiter", "cors")
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "CORSMiddleware is inside RateLimitMiddleware"
    ]


# Identities


HOSTILE = ["x" * 10_000, "a:b", "{org}", "a\tb", "..", "%2e", "é", "a b", "*", "'\"\\", "token"]


def test_hostile_identities_neither_collide_nor_break(limited: Limited) -> None:
    """Values that are long, blank or full of punctuation are counted apart, as tokens and as organizations."""
    client = limited(limits=[TOKEN, {**ORG, "rate": "1000/minute"}])
    for value in HOSTILE:
        header = value.encode("latin-1")
        assert left(client.get("/", headers=[(b"x-token", header), (b"x-org", header)])) == 4


async def test_ids_that_no_header_can_carry(store: Store, clock: ManualClock) -> None:
    """NUL, newlines, emoji and lone surrogates from an app's own identify are counted apart, in both stores."""
    settings = RateLimitSettings.model_validate({"limits": [TOKEN, ORG]})
    limiter = Limiter(settings, store, clock)
    for value in ("\0", "\n", "\r\n", "🦊", "\ud800", "a\0b", "a\nb", "{a}", "a}b{"):
        decision = await limiter.check(Identity(token=value, org=value))
        assert [one.remaining for one in decision.limits] == [4, 2]


def test_requests_without_an_identity_pass_limits_by_token(limited: Limited) -> None:
    """Without an identity, limits by token do not apply, and limits of all callers together do."""
    shared = {"name": "all", "rate": "2/minute"}
    client = limited(limits=[TOKEN, shared], identify=lambda connection: None)
    responses = [client.get("/") for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[2].headers["x-ratelimit-scope"] == "global"


def test_an_identify_that_fails_is_neither_401_nor_500(limited: Limited) -> None:
    """If identify fails, as it may under load, the client's address is limited."""

    def broken(connection: HTTPConnection) -> Identity:
        raise ConnectionError

    client = limited(limits=[{"name": "ip", "rate": "1/minute", "per": "ip"}], identify=broken)
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]


def test_a_clock_that_steps_back(limited: Limited, clock: ManualClock) -> None:
    """If the clock is set back by an hour, room comes later, and never more than the limit is admitted."""
    client = limited(limits=[{**TOKEN, "rate": "3/minute"}])
    served = 0
    for step in (0, -5, -3600, 1, 1, 1):
        clock.advance(seconds=step)
        served += client.get("/").is_success
    assert served == 3


async def test_a_server_whose_clock_differs(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reset_at` goes by this process's clock, although the server's differs by 30 s: the store sends durations."""
    from ratelimit.clock import system_clock  # noqa: PLC0415 - shifted below

    def shifted() -> int:
        return system_clock() + 30_000_000

    monkeypatch.setattr("ratelimit.stores.redis.pending_call.system_clock", shifted)
    settings = RateLimitSettings.model_validate({"limits": [TOKEN], "store": redis_url, "store_timeout": 10})
    async with Limiter(settings) as limiter:
        decision = await limiter.check(Identity(token="t"))
    assert decision.binding is not None
    assert abs(decision.binding.reset_at - shifted() / 1e6 - 60) < 1.5
