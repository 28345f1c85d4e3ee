"""The promise: who is no operator changes nothing and reads nothing, by whatever method, path, header or page of another site.

Attackers are anonymous callers, and web pages of other sites in an operator's browser, which sends the operator's cookie along.
"""

import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from ratelimit.cli.commands.serving import KeyHolder
from ratelimit.console import console
from ratelimit.testing import ManualClock
from tests.support.surfaces import OPERATOR, Surfaces, headers_of, surfaces

ROUTES = ["GET /overrides", "PUT /overrides", "DELETE /overrides", "GET /blocks", "PUT /blocks", "DELETE /blocks"]
ROUTES += ["POST /usage", "POST /reset"]
JSON = {"content-type": "application/json"}
OVERRIDE = json.dumps({"policy": "agents", "key": {}, "rate": "unlimited"}).encode()


@pytest.fixture
async def served(redis_url: str, clock: ManualClock) -> AsyncIterator[Surfaces]:
    async with surfaces(redis_url, clock) as found:
        await found.limiter.block({"org": "evil"}, by="ada")
        yield found


async def is_unchanged(served: Surfaces) -> bool:
    """Say whether no control is another than at the beginning."""
    lists = (
        await served.limiter.overrides.list(),
        await served.limiter.fleet.list(),
        await served.limiter.allowed.list(),
    )
    blocks = [dict(each.key) for each in await served.limiter.blocks.list()]
    return lists == ([], [], []) and blocks == [{"org": "evil"}] and len(await served.limiter.audit.list()) == 1


BODIES = [b"", b"{", b"[" * 100_000, b"\xff", OVERRIDE, b"\x00", b'{"a":' * 50_000]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_an_anonymous_caller_is_refused_before_its_body_is_read(
    served: Surfaces, route: str, body: bytes
) -> None:
    """With 403, whatever the body is; of a body of any size no more is read than the server has brought along."""
    method, path = route.split()
    answer = await served.raw(method, f"/internal{path}", JSON, [body, *[b" " * 65_536] * 100])
    assert (answer.status, answer.read <= 1) == (403, True)
    assert await is_unchanged(served)


TARGETS = [
    *(
        "/internal//overrides",
        "//internal/overrides",
        "/internal/overrides/",
        "/internal/./overrides",
        "/INTERNAL/overrides",
    ),
    *(
        "/internal/x/../overrides",
        "/internal/%6fverrides",
        "/internal%2foverrides",
        "/internal/overrides%2f",
        "/internal/overrides;x",
    ),
    *(
        "/internal/overrides%00",
        "/v1/../internal/overrides",
        "/ratelimit/../internal/overrides",
        "/limits/../internal/overrides",
    ),
    *(
        "/internal/overrides?x-operator=ada",
        "/internal/overrides?_method=PUT",
        "/internal/overrides%3fx-operator=ada",
        "/ratelimit",
    ),
    *(
        "/ratelimit/",
        "/ratelimit//",
        "//ratelimit/",
        "/ratelimit/%2e/",
        "/ratelimit/live/",
        "/ratelimit/live%2f",
        "/ratelimit/LIVE",
    ),
    *(
        "/ratelimit/change/block-set",
        "/ratelimit//change/block-set",
        "/ratelimit/change/%62lock-set",
        "/ratelimit/change/reset/",
    ),
    *(
        "/ratelimit/static/../live",
        "/ratelimit/static/%2e%2e%2flive",
        "/ratelimit/static/..",
        "/ratelimit/policies/../live",
    ),
    *(
        "/ratelimit/quotas/calls.csv",
        "/ratelimit/quotas/..%2f..%2finternal%2foverrides.csv",
        "/ratelimit/policies//agents",
    ),
]
METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH", "TRACE", "put", "PUT ", "CONNECT", ""]
TRICKS: list[dict[str, str]] = [
    {},
    {"x-http-method-override": "PUT", "x-http-method": "PUT", "x-method-override": "PUT"},
    {
        "x-original-url": "/internal/overrides",
        "x-rewrite-url": "/internal/overrides",
        "x-forwarded-prefix": "/internal",
    },
    {
        "x-forwarded-user": "ada",
        "x-remote-user": "ada",
        "x-operator": "",
        "authorization": "Basic YWRhOg==",
        "cookie": "session=",
    },
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "host": "localhost", "x-forwarded-host": "localhost"},
]


@pytest.mark.parametrize("trick", TRICKS, ids=range(len(TRICKS)))
async def test_tricks_with_methods_and_paths_lead_nowhere(served: Surfaces, trick: dict[str, str]) -> None:
    """No spelling of a path, method or header brings an anonymous caller an answer that is an operator's."""
    for target in TARGETS:
        for method in METHODS:
            answer = await served.raw(method, target, {**JSON, "sec-fetch-site": "same-origin", **trick}, [OVERRIDE])
            assert 300 <= answer.status < 500, (method, target, answer.status)
            assert "evil" not in answer.text, (method, target)
    assert await is_unchanged(served)


async def test_head_of_a_page_needs_an_operator_too(served: Surfaces) -> None:
    """HEAD is answered as GET is, and changes nothing."""
    for page in ("/ratelimit/", "/ratelimit/live", "/ratelimit/quotas/calls.csv"):
        assert (await served.raw("HEAD", page, {})).status == 403
        assert (await served.raw("HEAD", page, OPERATOR)).status == 200
    assert (await served.raw("HEAD", "/ratelimit/change/block-set", OPERATOR)).status == 405
    assert await is_unchanged(served)


SIMPLE: list[dict[str, str]] = [
    {},
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": "text/plain; application/json"},
    {"content-type": ""},
]
"""What a page of another site may send without asking first (Fetch standard, CORS-safelisted request headers)."""


@pytest.mark.parametrize("sent", SIMPLE, ids=str)
async def test_another_site_cannot_use_the_operators_cookie_on_admin_routes(
    served: Surfaces, sent: dict[str, str]
) -> None:
    """Where operators sign in by a cookie, a page of another site gets no request through that a browser sends without a preflight."""
    for _ in range(3):
        await served.ask()
    headers = {**sent, "cookie": "session=ada", "origin": "http://evil.test", "sec-fetch-site": "cross-site"}
    for body in (b'{"caller": {"token": "tk", "org": "acme"}}', b'caller={"token": "tk"}'):
        assert (await served.raw("POST", "/internal/reset", headers, [body])).status in {403, 415, 422}
    assert await served.ask() == 429
    preflight = {**headers, "access-control-request-method": "PUT", "access-control-request-headers": "content-type"}
    assert (await served.raw("OPTIONS", "/internal/overrides", preflight)).status == 405
    assert await is_unchanged(served)


CHANGES = [
    "override-set",
    "override-delete",
    "block-set",
    "block-delete",
    "allow-set",
    "allow-delete",
    "reset",
    "shadow",
    "pause",
    "enforce",
]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "sent",
    [
        {"sec-fetch-site": "cross-site", "origin": "http://evil.test"},
        {"sec-fetch-site": "same-site", "origin": "http://other.app.test"},
        {"origin": "http://evil.test"},
        {"origin": "http://app.test.evil.test"},
        {"origin": "null"},
        {"referer": "http://app.test/ratelimit/"},
        {},
    ],
    ids=str,
)
async def test_another_site_cannot_make_a_change(served: Surfaces, name: str, sent: dict[str, str]) -> None:
    """Every form of the console, with the operator's cookies and a token that the site has learned."""
    token = "0" * 32
    cookies = {"cookie": f"session=ada; ratelimit_csrf={token}", "content-type": "application/x-www-form-urlencoded"}
    body = (
        f"csrf={token}&policy=agents&rate=unlimited&whom=everybody&key.org=acme&why=x&for=1+hour&mode=paused".encode()
    )
    answer = await served.raw("POST", f"/ratelimit/change/{name}", {**cookies, "host": "app.test", **sent}, [body])
    assert answer.status == 403
    assert await is_unchanged(served)


async def test_no_page_can_be_framed_or_read_by_another_site(served: Surfaces) -> None:
    """Nor does one load anything from elsewhere, or stay in a cache: also errors and files."""
    for page in (
        "/ratelimit/",
        "/ratelimit/nowhere",
        "/ratelimit/quotas/calls.csv",
        "/ratelimit/static/console.css",
        "/limits/",
    ):
        answer = await served.client.get(
            page, headers={**OPERATOR, **headers_of("tk", "acme"), "origin": "http://evil.test"}
        )
        assert answer.headers["x-frame-options"] == "DENY", page
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.fixture
async def local(served: Surfaces) -> AsyncIterator[tuple[httpx.AsyncClient, KeyHolder]]:
    """Serve the console of the command line, on this machine."""
    holder = KeyHolder("ada")
    app = Starlette(routes=[Mount("/", console(served.limiter, authorize=holder, authorize_changes=holder))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8800") as client:
        yield client, holder


@pytest.mark.parametrize(
    "host", ["evil.test:8800", "127.0.0.1.evil.test", "localhost:8800", "[::1]", "evil.test\x00127.0.0.1", ""]
)
async def test_a_rebound_name_gets_no_page(
    served: Surfaces, local: tuple[httpx.AsyncClient, KeyHolder], host: str
) -> None:
    """DNS rebinding: a site whose name now leads to this machine is of one origin with it, but the browser has no key for that name."""
    client, _ = local
    own = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for path in ("/", "/live", "/quotas/calls.csv", "/?key=", "/?key=x"):
        assert (await client.get(path, headers=own)).status_code == 403
    fields = {"csrf": "0" * 32, "key.org": "acme", "why": "x"}
    cookie = {**own, "cookie": f"ratelimit_csrf={'0' * 32}"}
    assert (await client.post("/change/allow-set", data=fields, headers=cookie)).status_code == 403
    assert await is_unchanged(served)


async def test_the_key_is_not_kept_in_an_address(local: tuple[httpx.AsyncClient, KeyHolder]) -> None:
    """The printed address leads to one without the key, on this site, and leaves a cookie that no script and no other site gets."""
    client, holder = local
    answer = await client.get(f"/?key={holder.key}&next=http://evil.test")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(re.split("; ", answer.headers["set-cookie"]))
    assert len(holder.key) >= 22


@pytest.mark.parametrize("secret", ["key", "csrf"])
async def test_secrets_are_compared_in_constant_time(
    local: tuple[httpx.AsyncClient, KeyHolder], monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """An attacker who measures the time of an answer learns no part of the key, or of the token of a form."""
    client, holder = local
    compared: list[tuple[Any, Any]] = []

    def noted(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", noted)
    monkeypatch.setattr(secrets, "compare_digest", noted)
    guess = holder.key[:-1] + "~" if secret == "key" else "1" * 32
    if secret == "key":
        assert (await client.get("/", params={"key": guess})).status_code == 403
    else:
        cookies = {"cookie": f"ratelimit_key={holder.key}; ratelimit_csrf={'0' * 32}", "sec-fetch-site": "same-origin"}
        sent = await client.post("/change/block-set", data={"csrf": guess, "key.org": "a", "why": "x"}, headers=cookies)
        assert sent.status_code == 403
    assert guess.encode() in {one for one, _ in compared} | {other for _, other in compared}
