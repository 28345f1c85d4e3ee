"""The README and the pages in `docs/` are correct: their snippets run, and their links lead somewhere."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from ratelimit import Identity, Limit, Limiter, MemoryStore, RateLimitMiddleware, RateLimitSettings
from ratelimit.testing import ManualClock, StoreConformance, disable_limits
from ratelimit.testing.clock import START

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CLOCK = re.findall(
    r"^\| (\d\d):(\d\d):(\d\d) \| (served|refused)(?:, Retry-After (\d+))? \| (\d+) \|", README, re.MULTILINE
)


def run(*snippets: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme"}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    return names


def statuses(app: Any, path: str, times: int, **headers: str) -> list[int]:
    with TestClient(app) as client:
        return [client.get(path, headers=headers).status_code for _ in range(times)]


def test_the_first_snippet_is_the_quickstart() -> None:
    """It limits as the page says, and equals the example of that name."""
    assert statuses(run(SNIPPETS[0])["app"], "/hello", 6) == [200] * 5 + [429]
    example = (ROOT / "examples" / "server" / "quickstart.py").read_text()
    assert re.sub(r"\n+", "\n", example) == re.sub(r"\n+", "\n", SNIPPETS[0])


def test_three_layers_in_settings_and_on_redis(redis_url: str) -> None:
    """The limits hold in memory and, with one line changed, on Redis."""
    for name in ("memory", "redis"):
        names = run(SNIPPETS[1])
        settings = names["settings"]
        if name == "redis":
            settings = run(SNIPPETS[1], SNIPPETS[2].replace("redis://localhost:6379/0", redis_url))["settings"]
            assert settings.store == redis_url
        app = names["FastAPI"]()
        app.get("/api/exports/full")(lambda: "export")
        app.add_middleware(names["RateLimitMiddleware"], settings=settings, identify=names["identify"])
        with TestClient(app, headers={"x-api-key": "k"}) as client:
            assert client.get("/api/exports/full").headers["x-ratelimit-scope"] == "endpoint"
            assert client.get("/api/exports/full").json()["policy"] == "export"


def test_starlette() -> None:
    """Starlette takes the same middleware, with settings from a file."""
    with TestClient(run(SNIPPETS[3])["app"]) as client:
        answer = client.get("/", headers={"authorization": "Bearer t"})
    assert (answer.text, answer.headers["x-ratelimit-limit"]) == ("hello", "600")


async def test_anywhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    """The limiter works without HTTP."""
    work: Callable[[], Any] = run(SNIPPETS[4])["work"]
    await work()
    assert capsys.readouterr().out == "True 0.0 1\n"


def snippets_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_the_environment_changes_the_store_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the snippet of docs/settings.md, `RATELIMIT__STORE` is read, and the limits stay."""
    monkeypatch.setenv("RATELIMIT__STORE", "redis://cache/3")
    settings = run(*snippets_of("settings.md"))["Settings"]().ratelimit
    assert (settings.store, [one.name for one in settings.limits]) == ("redis://cache/3", ["token"])


async def test_the_snippets_of_beyond_rates(capsys: pytest.CaptureFixture[str], clock: ManualClock) -> None:
    """All snippets run, one after the other, and the endpoint settles the cost that the page names."""
    names = run(*snippets_of("beyond-rates.md"))
    limiter = Limiter(names["settings"], MemoryStore(clock=clock), clock)
    await names["job"](limiter)
    assert "tokens-month 1200 of 50000000 tokens last: 0" in capsys.readouterr().out
    assert await names["run"](limiter) == "done"
    await names["raise_one"](limiter)
    assert capsys.readouterr().out == "org {'org': 'acme'} 12000/minute\n"
    app = names["app"]
    app.add_middleware(RateLimitMiddleware, limiter=limiter, identify=lambda _: Identity(org="other"))
    with TestClient(app) as client:
        assert client.get("/answer").text == '"42"'
    used = {quota.policy: quota.used for quota in await limiter.usage(Identity(org="other"))}
    assert (used["requests"], used["tokens-month"]) == (1, 812)
    await metered(names, clock)


async def metered(names: dict[str, Any], clock: ManualClock) -> None:
    """Run the recipes for compute hours and gigabytes: what was really used is counted."""
    metering = Limiter(names["metered"], MemoryStore(clock=clock), clock)
    assert await names["compute"](metering, 125)
    files = names["FastAPI"]()
    files.get("/files/{name}")(names["download"])
    files.add_middleware(RateLimitMiddleware, limiter=metering, identify=lambda _: Identity(org="acme"))
    with TestClient(files) as client:
        assert client.get("/files/a").status_code == 200
    used = {quota.policy: quota.used for quota in await metering.usage(Identity(org="acme"))}
    assert used == {"compute": 125, "egress": 1000}


async def test_the_snippets_of_testing(freeze_limits: Callable[..., ManualClock]) -> None:
    """The tests on the page pass, with the fixtures that they name, and its store passes the suite."""
    names = run(*snippets_of("testing.md"))
    names["test_the_limit_and_its_wait"](freeze_limits)
    with disable_limits():
        names["test_something_else"]()
    await names["test_the_organization_shares"]()
    assert issubclass(names["TestMyStore"], StoreConformance)
    await asyncio.to_thread(names["TestMyStore"]().test_all_or_nothing)


async def test_the_snippets_of_clients(capsys: pytest.CaptureFixture[str]) -> None:
    """All snippets run, and those that send something send it."""
    names = run(*snippets_of("clients.md"))
    await names["backfill"](["a", "b"])
    await names["export"](["c"])
    await names["deliver"]("s")
    assert capsys.readouterr().out == "sending a\nsending b\nexporting c\nsent to s\n"
    response = httpx.Response(429, extensions={"ratelimit": {"retry_after": 300.0, "max_wait": 120.0}})
    assert names["postponed"](response) == 300
    assert (names["no_retries"].retries, names["patient"].retries) == (0, 20)


def clients_of_identity(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """Run each recipe of docs/identity.md by itself, and return the names of those that are a whole app, by heading."""
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "identity.md").read_text()
    found = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    return {heading: names for heading, snippet in found if "app" in (names := run(snippet))}


def test_the_recipes_of_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each counts its callers apart, and none by what it has not verified."""
    recipes = clients_of_identity(monkeypatch, tmp_path)
    assert len(recipes) == 5
    jwts, keys, oauth2, cookie, certificate = recipes.values()

    def token(**claims: str) -> str:
        return f"Bearer {jwts['jwt'].encode(claims, jwts['SECRET'], 'HS256')}"

    assert statuses(jwts["app"], "/me", 3, authorization=token(sub="ann")) == [200, 200, 429]
    assert statuses(jwts["app"], "/me", 5, authorization=token(sub="bob", plan="pro")) == [200] * 4 + [429]
    assert statuses(jwts["app"], "/me", 3, authorization="Bearer invented") == [401] * 3

    asyncio.run(fill(keys))
    assert statuses(keys["app"], "/agents", 3, **{"x-api-key": "k1"}) == [200, 200, 429]
    assert statuses(keys["app"], "/agents", 5, **{"x-api-key": "k2"}) == [200] * 4 + [429]
    assert statuses(keys["app"], "/agents", 3, **{"x-api-key": "invented"}) == [200] * 3
    asyncio.run(keys["engine"].dispose())

    assert statuses(oauth2["app"], "/me", 3, authorization="Bearer token-of-ann") == [200, 200, 429]
    assert statuses(oauth2["app"], "/me", 3, authorization="Bearer invented") == [401] * 3

    for user in ("ann", "bob"):
        with TestClient(cookie["app"], base_url="https://testserver") as client:
            client.post("/login", params={"user": user})
            assert [client.get("/me").status_code for _ in range(3)] == [200, 200, 429]

    behind_proxy = TestClient(certificate["app"], client=("10.0.0.1", 1))
    direct = TestClient(certificate["app"], client=("192.0.2.1", 1))
    for client, expected in ((behind_proxy, [200, 200, 429]), (direct, [200] * 3)):
        headers = {"x-client-dn": "CN=ann"}
        assert [client.get("/agents", headers=headers).status_code for _ in range(3)] == expected


async def fill(names: dict[str, Any]) -> None:
    """Write two keys into the table of the recipe."""
    async with names["engine"].begin() as connection:
        await connection.run_sync(names["Table"].metadata.create_all)
    async with names["sessions"].begin() as session:
        for key, org, plan in (("k1", "acme", "free"), ("k2", "umbrella", "pro")):
            session.add(names["ApiKey"](hash=names["sha256"](key.encode()).hexdigest(), org=org, plan=plan))
    await names["engine"].dispose()


async def test_the_snippets_of_operating(capsys: pytest.CaptureFixture[str], clock: ManualClock) -> None:
    """Overrides, resets and blocks do what the page says, and the routes are there."""
    clock.now = int(datetime.now(UTC).timestamp()) * 1_000_000
    names = run(*snippets_of("operating.md"))
    limiter = Limiter(names["settings"], MemoryStore(clock=clock), clock)
    await names["change"](limiter)
    assert capsys.readouterr().out.splitlines() == [
        "org {'org': 'acme'} None 12000/minute",
        "requests {'org': 'acme'} None unlimited",
        "requests {} trial 10000",
        "token {} None 300/minute",
    ]
    await names["help_out"](limiter)
    assert capsys.readouterr().out.splitlines()[-1] == "2 403"
    await names["during_an_incident"](limiter)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[(None, 'paused'), ('org', 'shadow')]"
    assert lines[1].startswith(
        "[(None, 'delete', '!allow:ip=192.0.2.0/24', None), (None, 'delete', '!switch:shadow:org', None)"
    )
    counting = Limiter(names["counting"], MemoryStore(clock=clock), clock)
    await names["who_is_it"](counting)
    assert "('token', 'token#" in capsys.readouterr().out.splitlines()[0]
    await names["watch"](names["settings"])
    assert re.fullmatch(r"token \* token#[0-9a-f]{8} store\nTrue\n", capsys.readouterr().out)
    await names["how_it_was"](Limiter(names["counting"], MemoryStore(clock=clock), clock))
    assert capsys.readouterr().out == "{'org': (1, 0), 'requests': (1, 0), 'token': (1, 0)}\n"
    with TestClient(names["measured"]) as client:
        scraped = client.get("/metrics")
        assert scraped.headers["content-type"].startswith("text/plain")
        assert any(family.name == "ratelimit_requests" for family in text_string_to_metric_families(scraped.text))
        assert client.get("/health/rate-limits").json()["ok"]
    with TestClient(names["app"]) as client:
        assert client.get("/v1/rate-limits", headers={"x-api-key": "k"}).json()[0]["remaining"] == 600
        assert client.get("/internal/limits/overrides").status_code == 403
        assert client.get("/internal/limits/overrides", headers={"x-operator-key": "a secret"}).json() == []


def test_the_snippets_of_openapi(capsys: pytest.CaptureFixture[str]) -> None:
    """The first prints what the page shows, and the app of the second serves its own document."""
    names = run(*snippets_of("openapi.md"))
    shown = re.search(r"```text\n(.*?)```", (ROOT / "docs" / "openapi.md").read_text(), re.DOTALL)
    assert shown is not None
    assert capsys.readouterr().out == shown[1]
    with TestClient(names["app"]) as client, TestClient(names["private"]) as private:
        assert "x-ratelimit" in client.get("/openapi.json").text
        assert "x-ratelimit" not in private.get("/openapi.json").text


async def test_the_table_of_the_sliding_window(clock: ManualClock) -> None:
    """A replay of the README's table gives the same outcomes."""
    settings = RateLimitSettings(limits=[Limit(name="t", rate="3/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    assert len(CLOCK) == 5
    for hours, minutes, seconds, outcome, wait, left in CLOCK:
        clock.now = START + (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1_000_000
        decision = await limiter.check(Identity(token="t"))
        assert decision.allowed == (outcome == "served")
        assert decision.limits[0].remaining == int(left)
        assert -int(-decision.retry_after // 1) == int(wait or 0)


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    """The README has at most 150 lines, and shows a result within 40; no page has a dead link."""
    assert README.count("\n") <= 150
    assert "429 Too Many Requests" in "\n".join(README.splitlines()[:40])
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"
