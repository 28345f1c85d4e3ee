"""The promise: operators see limits and quotas and change them, and no other site, caller or name can make them.

It tests `console.application`, `console.actions`, `console.assets`, `console.callers`, `console.live`, `console.notices`,
`console.overview`, `console.own_page`, `console.policy_page`, `console.quotas`, `console.security`, `console.visit`,
`asgi.authorization` and `asgi.caller_status`. `test_console_in_chromium.py` has the pages as people see them.
"""

import base64
import csv
import hashlib
import html
import io
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from httpx2 import Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import ratelimit.console
from ratelimit import ConfigurationError, Identity, Limit, Limiter, Quota, RateLimitMiddleware, RateLimitSettings
from ratelimit.asgi.identify import bearer_token
from ratelimit.cli.main import cli
from ratelimit.console import caller_page, console
from ratelimit.testing import ManualClock
from tests.support.ports import free_port

HOSTILE = "<img src=x onerror=alert(1)>'\"&"


def identify(connection: HTTPConnection) -> Identity | None:
    token = bearer_token(connection)
    return None if token is None else Identity(token=token, org=token.partition("-")[0], plan="pro")


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


def app_of(limiter: Limiter, **options: Any) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with limiter:
            yield

    settings: dict[str, Any] = {"authorize": lambda _: "maria", "authorize_changes": lambda _: True, **options}
    return Starlette(
        routes=[
            Route("/v1/agents/{id}", answer),
            Mount("/ratelimit", console(limiter, **settings)),
            Mount("/limits", caller_page()),
        ],
        middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=identify)],
        lifespan=lifespan,
    )


def limiter_of(store: str = "memory://", clock: ManualClock | None = None) -> Limiter:
    return Limiter(
        RateLimitSettings(
            store=store,
            store_timeout=5,
            statistics=True,
            limits=[
                Limit(name="agents", rate="3/hour", per="token", plans={"pro": "5/hour"}),
                Limit(name="org", rate="100/hour", per="org"),
                Limit(name="service", rate="1000/hour", per=()),
                Limit(name="tried", rate="1/hour", per="org", shadow=True),
            ],
            quotas=[Quota(name="calls", limit=10, per="org", period="month")],
        ),
        clock=clock,
    )


class Operator:
    """A browser of an operator, as far as HTTP goes."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, path: str = "", **headers: str) -> Response:
        return self.client.get(f"/ratelimit/{path}", headers=headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Response:
        self.get("callers")
        token = self.client.cookies.get("ratelimit_csrf")
        sent = {"sec-fetch-site": "same-origin", **headers}
        return self.client.post(f"/ratelimit/{path}", data={"csrf": str(token), **fields}, headers=sent)

    def change(self, name: str, **fields: str) -> str:
        """Make a change, and return the text of the page that follows."""
        done = self.post(f"change/{name}", {each.replace("__", "."): value for each, value in fields.items()})
        assert done.status_code == 200, done.text
        return done.text


@pytest.fixture(params=["memory", "redis"])
def operator(request: pytest.FixtureRequest) -> Iterator[Operator]:
    store = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    limiter = limiter_of(store)
    with TestClient(app_of(limiter), base_url="http://console.test") as client:
        yield Operator(client)


def ask(operator: Operator, token: str, times: int = 1) -> list[int]:
    headers = {"authorization": f"Bearer {token}"}
    return [operator.client.get(f"/v1/agents/{each}", headers=headers).status_code for each in range(times)]


def test_without_authorize_it_does_not_start() -> None:
    """A console that anyone may open is a mistake; so is one whose function cannot be called."""
    with pytest.raises(ConfigurationError, match=r"authorize: must be a function .*\[RL207\]"):
        console(limiter_of())
    with pytest.raises(ConfigurationError, match=r"authorize_changes: must be a function"):
        console(limiter_of(), authorize=lambda _: True, authorize_changes=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"limiter: must be a Limiter, got str"):
        console("memory://", authorize=lambda _: True)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"limiter: must be a Limiter, got str"):
        caller_page("memory://")  # type: ignore[arg-type]


def test_authorize_is_asked_for_every_page() -> None:
    """Sync or async; a no is 403, and what it raises is answered as it says. Only styles and scripts are for all."""

    async def nobody(request: Request) -> None:
        return None

    def ask_for_password(request: Request) -> bool:
        raise HTTPException(401, "Who are you?", {"www-authenticate": "Basic"})

    for authorize, status in ((nobody, 403), (ask_for_password, 401)):
        with TestClient(app_of(limiter_of(), authorize=authorize)) as client:
            paths = (
                "",
                "policies/org",
                "callers",
                "caller?org=a",
                "quotas",
                "quotas/calls",
                "quotas/calls.csv",
                "live",
                "live/events",
                "live/1",
            )
            found = [client.get(f"/ratelimit/{path}") for path in paths]
            found += [client.post(f"/ratelimit/{path}") for path in ("callers/search", "change/reset")]
            assert [each.status_code for each in found] == [status] * 12
            assert "agents" not in "".join(each.text for each in found)
            assert status == 403 or found[0].headers["www-authenticate"] == "Basic"
            assert client.get("/ratelimit/static/console.css").status_code == 200


def test_it_is_read_only_unless_changes_are_authorized() -> None:
    """No page has a form that changes something, and none is accepted; the function may say no to some."""
    for options in ({"authorize_changes": None}, {"authorize_changes": lambda request: "x-boss" in request.headers}):
        with TestClient(app_of(limiter_of(), **options)) as client:
            operator = Operator(client)
            for path in ("", "policies/org", "caller?org=a", "quotas/calls"):
                page = operator.get(path)
                assert "/change/" not in page.text
                assert "read-only" in page.text
            refused = operator.post("change/reset", {"key.org": "a", "why": "x"})
            assert (refused.status_code, "[RL223]" in refused.text) == (403, True)
    with TestClient(app_of(limiter_of(), authorize_changes=lambda request: "x-boss" in request.headers)) as client:
        done = Operator(client).post("change/reset", {"key.org": "a", "why": "x"}, **{"x-boss": "1"})
        assert done.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://console.test"},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://console.test.evil.test"},
        {},
    ],
)
def test_no_other_site_can_change_anything(headers: dict[str, str]) -> None:
    """Whatever the browser knows of where the form came from; not even with the right token."""
    limiter = limiter_of()
    with TestClient(app_of(limiter), base_url="http://console.test") as client:
        client.get("/ratelimit/callers")
        fields = {"csrf": str(client.cookies.get("ratelimit_csrf")), "key.org": "acme", "why": "x"}
        for path in ("change/block-set", "callers/search"):
            refused = client.post(f"/ratelimit/{path}", data=fields, headers=headers)
            assert (refused.status_code, "[RL222]" in refused.text) == (403, True)
        assert "acme" not in client.get("/ratelimit/").text


def test_a_form_needs_the_token_of_its_browser(operator: Operator) -> None:
    """A wrong one, none, and one without its cookie are refused; an older browser is known by its Origin."""
    fields = {"key.org": "acme", "why": "x"}
    for token in ("", "0" * 32, "é"):
        assert operator.post("change/block-set", {**fields, "csrf": token}).status_code == 403
    operator.client.cookies.clear()
    headers = {"sec-fetch-site": "same-origin"}
    refused = operator.client.post("/ratelimit/change/block-set", data={**fields, "csrf": "0" * 32}, headers=headers)
    assert refused.status_code == 403
    operator.client.cookies.set("ratelimit_csrf", "short", path="/ratelimit/")
    assert (
        operator.client.post(
            "/ratelimit/change/block-set", data={**fields, "csrf": "short"}, headers=headers
        ).status_code
        == 403
    )
    operator.client.cookies.clear()
    assert operator.get("change/block-set").status_code == 405
    token = str(re.search(r'name="csrf" value="(\w+)"', operator.get("callers").text)[1])  # type: ignore[index]
    origin = {"origin": "http://console.test"}
    done = operator.client.post("/ratelimit/change/block-set", data={**fields, "csrf": token}, headers=origin)
    assert done.status_code == 200


def test_every_answer_is_protected(operator: Operator) -> None:
    """Pages, files, errors and redirects: no foreign or inline script, no frame, no sniffing; and nothing is stored."""
    found = [operator.get(path) for path in ("", "callers", "live", "nowhere", "policies/none", "static/console.css")]
    found.append(operator.client.post("/ratelimit/change/reset", follow_redirects=False))
    found.append(operator.client.get("/limits/"))
    for each in found:
        policy = each.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert each.headers["x-frame-options"] == "DENY"
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] in {"no-store", "public, max-age=31536000, immutable"}
    page = operator.get("").text
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! src=\"/ratelimit/)", page)
    cookie = operator.client.get("/ratelimit/", headers={"cookie": ""}).headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/ratelimit/"))


def test_hostile_names_are_text(operator: Operator) -> None:
    """Of organizations, tokens, plans, reasons and operators; also a lone surrogate, and a formula in the CSV."""
    ask(operator, f"{HOSTILE}-1", 9)
    ask(operator, "=cmd()-1", 1)
    operator.change("block-set", key__org=HOSTILE, why=HOSTILE, back="")
    operator.change("override-set", policy="org", key__org=HOSTILE, rate="7/hour", why=HOSTILE, back="")
    paths = ["", "policies/org", "callers", "quotas", "quotas/calls", "live"]
    hostile = quote(HOSTILE)
    paths += [
        f"caller?org={hostile}&plan={hostile}&endpoint=GET%20{hostile}",
        f"live?caller={hostile}&policy={hostile}",
        f"quotas/calls?q={hostile}",
    ]
    links = re.findall(r'"/ratelimit/((?:live/[\d-]+|caller\?)[^"]*)"', operator.get("live").text)
    for path in [*paths, *(html.unescape(link) for link in links[:4])]:
        page = operator.get(path)
        assert page.status_code == 200, path
        assert "<img" not in page.text
        assert "&lt;img" in page.text or "%3Cimg" in page.text or path == "quotas"
    rows = [*csv.reader(io.StringIO(operator.get("quotas/calls.csv").text))]
    assert not [cell for row in rows for cell in row if cell[:1] in set("=+-@")]
    assert operator.get("caller?org=%ED%A0%80").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "static/../console.css",
        "static/%2e%2e/%2e%2e/pyproject.toml",
        "static//etc/passwd",
        "static/VENDORED.md",
        "policies/../../etc/passwd",
        "policies/",
        "quotas/none",
        "quotas/org",
        "live/%00",
        "live/nothing",
        "caller",
        "caller?org=",
        "nowhere",
        "%2e%2e/",
    ],
)
def test_paths_lead_nowhere_else(operator: Operator, path: str) -> None:
    """What there is not is 404."""
    assert operator.get(path).status_code == 404


@pytest.mark.parametrize(
    ("back", "leads"),
    [
        ("//evil.test", "/ratelimit/evil.test"),
        ("https://evil.test/", "/ratelimit/https://evil.test/"),
        ("\\\\evil.test", "/ratelimit/evil.test"),
        ("/callers", "/ratelimit/callers"),
        ("caller?org=a b\r\nx: y", "/ratelimit/caller?org=a%20b%0D%0Ax:%20y"),
    ],
)
def test_a_change_leads_back_into_the_console(operator: Operator, back: str, leads: str) -> None:
    """Never to another site."""
    operator.client.follow_redirects = False
    done = operator.post("change/reset", {"key.org": "a", "why": "x", "back": back})
    assert (done.status_code, done.headers["location"]) == (303, leads)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("override-set", {}, "policy: say it"),
        ("override-set", {"policy": "org", "rate": "5/hour"}, "why: say it"),
        ("override-set", {"policy": "org", "rate": "5/hour", "why": "x"}, "key: say whom"),
        ("override-set", {"policy": "none", "rate": "5/hour", "why": "x", "whom": "everybody"}, "is not one of"),
        ("override-set", {"policy": "org", "rate": "many", "why": "x", "whom": "everybody"}, "many"),
        ("override-set", {"policy": "org", "rate": "5/hour", "why": "x", "whom": "plan"}, "plan: say it"),
        (
            "override-set",
            {"policy": "org", "rate": "5/hour", "why": "x" * 501, "whom": "everybody"},
            "why: must be text",
        ),
        ("block-set", {"why": "x"}, "key: say who"),
        ("block-set", {"why": "x", "key.ip": "nonsense"}, "neither an address nor a network"),
        ("block-set", {"why": "x", "key.token_hash": "12"}, "not a whole hash"),
        ("pause", {"policy": "org", "why": "x"}, "a pause needs an end"),
        ("shadow", {"policy": "org", "why": "x", "for": "a while"}, "not one of 1 hour"),
        ("shadow", {"policy": "org", "why": "x", "for": "the day"}, "day: say it"),
        ("shadow", {"policy": "org", "why": "x", "for": "the day", "day": "24.12."}, "not a day"),
        ("shadow", {"policy": "org", "why": "x", "for": "the day", "day": "2001-01-01"}, "past or too far"),
        ("shadow", {"policy": "org", "why": "x", "for": "the day", "day": "9999-12-31"}, "not a day"),
        ("enforce", {"policy": "org"}, "mode: say it"),
        ("reset", {"why": "x"}, "key: say whose"),
    ],
)
def test_a_wrong_form_says_what_is_wrong(name: str, fields: dict[str, str], message: str) -> None:
    """And changes nothing."""
    with TestClient(app_of(limiter_of())) as client:
        operator = Operator(client)
        refused = operator.post(f"change/{name}", fields)
        assert refused.status_code == 422
        assert message in html.unescape(refused.text)
        assert "None is known." in operator.get("").text
        assert operator.post("change/nothing", {}).status_code == 404
        assert operator.post(f"change/{name}", {"why": "x" * 70_000}).status_code == 413


def command_of(page: str) -> list[str]:
    """Return the command line that a page shows."""
    found = re.search(r"The same by command: <code>(.*?)</code>", page)
    assert found is not None, page[:2000]
    return shlex.split(html.unescape(found[1]))[1:]


CHANGES: list[tuple[str, dict[str, str], str]] = [
    ("override-set", {"policy": "org", "key__org": "acme", "rate": "7/hour", "for": "7 days", "why": "a 'quoted' reason"}, "org is 7/hour for org=acme"),
    ("override-set", {"policy": "org", "key__org": "acme", "rate": "unlimited", "why": "b"}, "org is unlimited for org=acme. It was 7/hour."),
    ("override-delete", {"policy": "org", "key__org": "acme"}, "The override of org for org=acme is removed."),
    ("override-set", {"policy": "agents", "whom": "plan", "plan": "pro", "rate": "9/hour", "why": "c"}, "agents is 9/hour for the plan pro"),
    ("override-delete", {"policy": "agents", "whom": "plan", "plan": "pro"}, "is removed"),
    ("override-set", {"policy": "calls", "whom": "everybody", "rate": "99", "for": "the day", "day": "2031-01-31", "why": "d"}, "calls is 99 for everybody"),
    ("override-delete", {"policy": "calls", "whom": "everybody"}, "is removed"),
    ("override-delete", {"policy": "calls", "whom": "everybody"}, "There was no such override."),
    ("block-set", {"key__org": "evil", "key__ip": "192.0.2.0/24", "for": "1 hour", "why": "e"}, "org=evil ip=192.0.2.0/24 is blocked"),
    ("block-delete", {"key__org": "evil", "key__ip": "192.0.2.0/24"}, "is no longer blocked"),
    ("allow-set", {"key__org": "friend", "for": "1 day", "why": "f"}, "org=friend is allowed whatever it does"),
    ("allow-delete", {"key__org": "friend", "why": "over"}, "is no longer allowed"),
    ("allow-delete", {"key__org": "friend"}, "There was no such entry."),
    ("shadow", {"policy": "org", "for": "1 hour", "why": "g"}, "org: in shadow."),
    ("enforce", {"policy": "org", "mode": "shadow"}, "org: enforced again."),
    ("pause", {"for": "1 hour", "why": "h"}, "All policies: paused."),
    ("enforce", {"mode": "paused"}, "All policies: enforced again."),
    ("enforce", {"mode": "paused"}, "All policies: no switch was set."),
    ("reset", {"key__org": "acme", "policy": "org", "why": "i"}, "counters of org=acme were emptied."),
]  # fmt: skip


def test_every_change_says_what_it_did_and_by_which_command(redis_url: str, tmp_path: Path) -> None:
    """The audit trail knows who; and the command line that is shown does the same on the same store."""
    settings = tmp_path / "limits.toml"
    limiter = limiter_of(redis_url)
    settings.write_text(_toml(redis_url))
    with TestClient(app_of(limiter)) as client:
        operator = Operator(client)
        for name, fields, text in CHANGES:
            page = operator.change(name, back="", **fields)
            assert text in html.unescape(page)
            done = CliRunner().invoke(cli, [*command_of(page), "--config", str(settings)])
            assert done.exit_code == 0, (command_of(page), done.output)
            assert "notice" not in operator.get("").text, "it is shown once"
        trail = operator.get("").text
        assert trail.count("maria") >= 10


def _toml(url: str) -> str:
    policies = [
        '[[limits]]\nname = "agents"\nrate = "3/hour"\nper = ["token"]\nplans = { pro = "5/hour" }',
        '[[limits]]\nname = "org"\nrate = "100/hour"\nper = ["org"]',
        '[[quotas]]\nname = "calls"\nlimit = 10\nper = ["org"]\nperiod = "month"',
    ]
    return "\n".join([f'store = "{url}"\nstore_timeout = 5\nstatistics = true\n', *policies])


def test_a_caller_is_raised_lowered_and_blocked(operator: Operator) -> None:
    """Found by its token, which stands in no address; what the page says is what the caller gets."""
    assert ask(operator, "acme-1", 7).count(429) == 2
    found = operator.post("callers/search", {"kind": "token", "value": "acme-1"})
    assert "acme-1" not in str(found.url) + found.text
    assert {"org": "acme", "plan": "pro"}.items() <= dict(found.url.params).items()
    page = html.unescape(found.text)
    assert re.search(r"<b>5</b> of 5 used, 0 left", page)
    assert "plan 5/hour" in page
    key = {"key__token_hash": found.url.params["token_hash"], "policy": "agents", "why": "a launch"}
    operator.change("override-set", rate="8/hour", back="", **key)
    assert ask(operator, "acme-1", 4) == [200, 200, 200, 429]
    assert "a launch (maria)" in operator.client.get(found.url).text
    operator.change("override-set", rate="2/hour", back="", **key)
    assert ask(operator, "acme-1") == [429]
    operator.change("reset", back="", key__token_hash=key["key__token_hash"], key__org="acme", why="sorry")
    assert ask(operator, "acme-1", 3) == [200, 200, 429]
    operator.change("block-set", back="", key__org="acme", why="abuse")
    assert ask(operator, "acme-1") == [403]
    assert "This caller is blocked" in operator.client.get(found.url).text
    operator.change("block-delete", back="", key__org="acme")
    operator.change("allow-set", back="", key__org="acme", why="a friend")
    assert ask(operator, "acme-1", 3) == [200] * 3
    assert "allowed whatever it does" in operator.client.get(found.url).text


def test_switches_hold_for_all(operator: Operator) -> None:
    """Shadow serves and says what it would have refused; a pause serves; both end by a button."""
    ask(operator, "acme-1", 6)
    page = operator.change("shadow", policy="agents", why="x", back="", **{"for": "1 hour"})
    assert "in shadow" in page
    assert ask(operator, "acme-1") == [200]
    operator.change("enforce", policy="agents", mode="shadow", back="")
    assert ask(operator, "acme-1") == [429]
    page = operator.change("pause", why="x", back="", **{"for": "1 hour"})
    assert "paused until" in html.unescape(page)
    assert ask(operator, "acme-1") == [200]
    operator.change("enforce", mode="paused", back="")
    assert ask(operator, "acme-1") == [429]


def test_quotas_are_managed(operator: Operator) -> None:
    """Who has used how much, who is near, raised until a day, and all of it as CSV."""
    for org, times in (("acme", 9), ("small", 1), ("full", 12)):
        for number in range(times):
            ask(operator, f"{org}-{number}")
    page = html.unescape(operator.get("quotas/calls").text)
    assert re.findall(r'org=(\w+)">org:', page) == ["full", "acme", "small"]
    assert '<dd class="bad">2</dd>' in page
    operator.change(
        "override-set",
        policy="calls",
        key__org="full",
        rate="20",
        day="2031-01-31",
        why="paid",
        back="quotas/calls",
        **{"for": "the day"},
    )
    assert ask(operator, "full-99") == [200]
    rows = [*csv.DictReader(io.StringIO(operator.get("quotas/calls.csv").text))]
    assert [(row["caller"], row["limit"], row["used"], row["remaining"]) for row in rows] == [
        ("org:acme", "10", "9", "1"),
        ("org:full", "20", "11", "9"),
        ("org:small", "10", "1", "9"),
    ]
    assert "org:small" not in operator.get("quotas/calls?q=acme").text
    operator.change(
        "override-set", policy="calls", whom="everybody", rate="unlimited", why="a holiday", back="quotas/calls"
    )
    assert "unlimited" in operator.get("quotas/calls").text
    assert "2031-02-01" in operator.get("policies/calls").text


def test_refusals_are_seen_with_their_answers(operator: Operator) -> None:
    """The whole decision, and the very bytes of the answer; shadows answer nothing; filters hold."""
    refused = [operator.client.get("/v1/agents/1", headers={"authorization": "Bearer acme-1"}) for _ in range(6)][-1]
    page = operator.get("live").text
    place = re.findall(r'href="/ratelimit/(live/[\d-]+)"', page)
    shown = [html.unescape(operator.get(each).text) for each in place]
    assert any(refused.text in each and "content-type: application/problem+json" in each for each in shown)
    assert any("in shadow: the request was served" in each and "The answer" not in each for each in shown)
    assert operator.get("live?kind=shadow").text.count('<tr class="shadow">') == 5
    assert operator.get("live?policy=agents").text.count('<tr class="refused">') == 1
    assert operator.get("live?caller=nobody").text.count("<tr class=") == 0
    operator.change("block-set", key__org="acme", why="x", back="")
    blocked = operator.client.get("/v1/agents/1", headers={"authorization": "Bearer acme-1"})
    place = re.findall(r'href="/ratelimit/(live/[\d-]+)"', operator.get("live?policy=blocked").text)
    assert blocked.text in html.unescape(operator.get(place[0]).text)


def test_without_statistics_the_pages_say_so() -> None:
    """And show all that needs none."""
    limiter = Limiter(
        RateLimitSettings(
            limits=[Limit(name="org", rate="100/hour", per="org")],
            quotas=[Quota(name="calls", limit=9, per="org", period="day")],
        )
    )
    with TestClient(app_of(limiter)) as client:
        operator = Operator(client)
        for path in ("", "policies/org", "callers", "quotas/calls", "live"):
            assert "statistics = true" in operator.get(path).text
        assert operator.get("live/events").status_code == 404
        assert "<b>0</b> of 100 used" in operator.get("caller?org=a").text
        assert operator.get("quotas/calls.csv").text.count("\n") == 1


def test_a_store_that_is_away_is_said() -> None:
    """503, with a page; the app is served meanwhile."""
    limiter = limiter_of(f"redis://127.0.0.1:{free_port()}")
    with TestClient(app_of(limiter)) as client:
        operator = Operator(client)
        for path in ("", "policies/org", "caller?org=a", "quotas/calls", "live"):
            page = operator.get(path)
            assert (page.status_code, "The store is unavailable" in page.text) == (503, True)
        assert client.get("/limits/", headers={"authorization": "Bearer acme-1"}).status_code == 503
        assert ask(operator, "acme-1") == [200]


def test_the_console_finds_the_limiter_of_the_middleware() -> None:
    """Where none is handed in."""
    limiter = limiter_of()
    with TestClient(app_of(limiter)) as client:
        pass
    app = Starlette(
        routes=[Mount("/c", console(authorize=lambda _: True))],
        middleware=[Middleware(RateLimitMiddleware, settings=limiter.settings, identify=identify)],
    )
    with TestClient(app) as client:
        assert "agents" in client.get("/c/").text
        assert client.get("/c").status_code == 200, "the address without a slash leads there too"


def test_nothing_of_it_is_charged(operator: Operator) -> None:
    """Nor does a caller that is refused elsewhere lose its own page."""
    for path in ("", "callers", "nowhere", "static/console.css"):
        operator.client.get(f"/ratelimit/{path}", headers={"authorization": "Bearer acme-1"})
    assert ask(operator, "acme-1", 6) == [200] * 5 + [429]
    assert operator.client.get("/limits/", headers={"authorization": "Bearer acme-1"}).status_code == 200


def test_a_caller_sees_itself_alone(operator: Operator) -> None:
    """Its quotas and limits; no shadow, no capacity of the service, no form, and nothing of others. A stranger sees none."""
    ask(operator, "acme-1", 3)
    ask(operator, "other-1", 1)
    page = operator.client.get("/limits/?org=other&token_hash=1", headers={"authorization": "Bearer acme-1"}).text
    assert "<b>2</b> of 5 requests left" in page
    assert "<b>3</b> of 10 requests used, 7 left" in page
    assert not [word for word in ("tried", "service", "other", "<form", "token#") if word in page]
    assert operator.client.get("/limits/").status_code == 403
    assert operator.client.post("/limits/").status_code == 405


def test_names_are_the_same_on_every_page(operator: Operator) -> None:
    """An organization with blanks and signs is found by each link; a block there holds."""
    org = "a b/<c>&%41"
    headers = {"authorization": f"Bearer {org}-1"}
    statuses = [operator.client.get("/v1/agents/1", headers=headers).status_code for _ in range(7)]
    assert statuses.count(429) == 2
    for path in ("callers", "policies/agents", "quotas/calls", "live"):
        links = re.findall(r'"/ratelimit/(caller\?[^"]*org=[^"]*)"', operator.get(path).text)
        pages = [html.unescape(operator.get(html.unescape(link)).text) for link in set(links)]
        assert pages, path
        assert all(f"<code>{org}</code>" in page and "5 of 100 used" in re.sub("</?b>", "", page) for page in pages)
    key = dict(re.findall(r'name="(key\.[^"]*)" value="([^"]*)"', operator.get(html.unescape(links[0])).text))
    fields = {name: html.unescape(value) for name, value in key.items() if name in {"key.org", "key.token_hash"}}
    assert operator.post("change/block-set", {**fields, "why": "x"}).status_code == 200
    assert operator.client.get("/v1/agents/1", headers=headers).status_code == 403


def forms_of(page: str, action: str) -> list[dict[str, str]]:
    """Return the hidden fields of the forms that make a change."""
    forms = re.findall(rf'<form[^>]*/change/{action}">(.*?)</form>', page, re.DOTALL)
    hidden = [re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form) for form in forms]
    return [{name: html.unescape(value) for name, value in fields} for fields in hidden]


@pytest.fixture
def dimensioned() -> Iterator[Operator]:
    """Return an operator of an app that counts by dimensions, hashed ones among them, by method, and for all together."""
    settings = RateLimitSettings(
        statistics=True,
        dimensions=["user", "region"],
        hashed_dimensions=["region", "org"],
        limits=[
            Limit(name="user", rate="3/hour", per="user"),
            Limit(name="region", rate="9/hour", per=["region", "org"]),
            Limit(name="method", rate="9/hour", per=["org", "method"]),
            Limit(name="all", rate="99/hour", per=()),
        ],
        quotas=[Quota(name="calls", limit=9, per="user", period="day", plans={"pro": 99})],
    )
    with TestClient(app_of(Limiter(settings))) as client:
        yield Operator(client)


@pytest.mark.parametrize(
    "where",
    [
        "caller?dimension.user=bob",
        f"caller?dimension.region_hash={'1' * 32}",
        f"caller?org_hash={'2' * 32}",
        "caller?plan=pro",
    ],
)
def test_every_form_of_a_caller_is_accepted(dimensioned: Operator, where: str) -> None:
    """Whatever the caller is known by: to block, to allow, to reset, and to change each rate that is offered."""
    page = dimensioned.get(where).text
    offered = [
        (action, each)
        for action in ("block-set", "allow-set", "override-set", "reset")
        for each in forms_of(page, action)
    ]
    assert {action for action, _ in offered} >= {"block-set", "allow-set"}
    for action, fields in offered:
        done = dimensioned.post(f"change/{action}", {**fields, "why": "x", "rate": "5"})
        assert done.status_code == (422 if where.endswith("plan=pro") and action == "reset" else 200), (action, fields)


def test_a_rate_of_a_method_is_changed_at_an_endpoint(dimensioned: Operator) -> None:
    """The endpoint that is chosen says which; a rate of all callers is changed on its own page."""
    everywhere = dimensioned.get(f"caller?org_hash={'2' * 32}").text
    assert "method" not in [each["policy"] for each in forms_of(everywhere, "override-set")]
    chosen = dimensioned.get(f"caller?org_hash={'2' * 32}&endpoint=GET /v1/agents/{{id}}").text
    found = [each for each in forms_of(chosen, "override-set") if each["policy"] == "method"]
    assert [each["key.method"] for each in found] == ["GET"]
    assert "Its rate is that of all callers" in chosen
    assert "all" not in [each["policy"] for each in forms_of(chosen, "override-set")]


def test_no_command_is_shown_that_would_name_another_caller(dimensioned: Operator) -> None:
    """The command line takes hashes of tokens alone."""
    page = dimensioned.change("reset", why="x", back="", **{"key__dimension.region_hash": "1" * 32})
    assert "were emptied" in page
    assert "by command" not in page


def test_overrides_of_others_are_not_those_of_a_caller(dimensioned: Operator) -> None:
    """Neither of a plan nor of all; and a plan that is unlimited is shown so."""
    dimensioned.change("override-set", policy="all", whom="plan", plan="pro", rate="5/hour", why="of a plan", back="")
    dimensioned.change("override-set", policy="calls", whom="plan", plan="pro", rate="unlimited", why="x", back="")
    assert "of a plan" not in dimensioned.get("caller?dimension.user=bob").text
    assert "pro unlimited" in dimensioned.get("quotas").text


def test_who_may_change_is_who_changes() -> None:
    """The name that `authorize_changes` returns is in the audit trail."""
    options = {"authorize": lambda _: True, "authorize_changes": lambda _: "alice"}
    with TestClient(app_of(limiter_of(), **options)) as client:
        assert "--by alice" in Operator(client).change("block-set", key__org="evil", why="x", back="")


@pytest.mark.parametrize("why", ["'" * 500, "й" * 500, "😀" * 500])
def test_a_notice_always_arrives(operator: Operator, why: str) -> None:
    """Its command is whole, or left out."""
    page = operator.change("block-set", key__org="evil", why=why, back="")
    assert "org=evil is blocked" in page
    assert "The same by command" not in page or command_of(page)[-3] == why


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"origin": "http://["}, "why=x", 403),
        ({"sec-fetch-site": "same-origin"}, "&".join(f"a{number}=1" for number in range(300)), 413),
        ({"sec-fetch-site": "same-origin", "cookie": f"ratelimit_done={'W1tb' * 2000}"}, "why=x", 403),
    ],
)
def test_odd_requests_are_refused(operator: Operator, headers: dict[str, str], body: str, status: int) -> None:
    """By a page, and by no failure."""
    sent = {"content-type": "application/x-www-form-urlencoded", **headers}
    assert operator.client.post("/ratelimit/change/reset", content=body, headers=sent).status_code == status
    nested = base64.b64encode(b"[" * 2000).decode()
    assert operator.get("", cookie=f"ratelimit_done={nested}").status_code == 200


async def calls_of(app: Starlette) -> int:
    """Return how many Python functions are called for one request of a caller that was there before."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/agents/1",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer acme-1")],
    }
    numbers, statuses = [0] * 20, set()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.add(message.get("status", 200))

    for which in range(len(numbers)):

        def count(frame: object, event: str, argument: object, which: int = which) -> None:
            numbers[which] += event in {"call", "c_call"}

        sys.setprofile(count)
        try:
            await app(dict(scope), receive, send)
        finally:
            sys.setprofile(None)
    assert statuses == {200}
    return min(numbers)  # Apart from what happens once, or now and then.


async def test_the_requests_of_the_app_pay_nothing_for_it() -> None:
    """Each calls the very same number of functions, whether a console is mounted beside its routes or not."""
    settings = RateLimitSettings(
        statistics=True,
        limits=[
            Limit(name="agents", rate="100/hour", per="token"),
            Limit(name="tried", rate="1/hour", per="org", shadow=True),
        ],
        quotas=[Quota(name="calls", limit=100, per="org", period="month")],
    )
    with_console, without = (app_of(Limiter(settings, clock=ManualClock())) for _ in range(2))
    without.router.routes[:] = [route for route in without.routes if not isinstance(route, Mount)]
    assert await calls_of(with_console) == await calls_of(without)


def test_vendored_files_are_those_that_were_checked() -> None:
    """Byte for byte."""
    folder = Path(ratelimit.console.__file__).parent / "static"
    rows = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (folder / "VENDORED.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {path.name for path in folder.glob("*.min.js")}
    for name, digest in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
