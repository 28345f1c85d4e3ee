"""The README and the pages in `docs/` are correct: their snippets run, and their links lead somewhere."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
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


async def test_the_table_of_the_sliding_window(clock: ManualClock) -> None:
    """A replay of the README's table gives the same outcomes."""
    settings = RateLimitSettings(limits=[Limit(name="t", rate="3/minute", per="token")])
    limiter = Limiter(settings, MemoryStore(clock=clock), clock)
    assert len(CLOCK) == 6
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
