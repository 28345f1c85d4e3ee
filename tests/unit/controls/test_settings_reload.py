"""Reloading: other settings hold at once, or the ones before stay; counters go on."""

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from ratelimit import ConfigurationError, Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings, limit
from ratelimit.controls.settings_reload import FIXED_FIELDS
from ratelimit.enforcement.events import ReloadEvent
from ratelimit.enforcement.listeners import Listener
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers

WHO = Identity(token="t", org="o")


def settings(rate: int = 3, **fields: Any) -> RateLimitSettings:
    return RateLimitSettings(limits=[Limit(name="a", rate=f"{rate}/minute", per="token")], **fields)


class Heard(Listener):
    """Keeps what it hears of reloads."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None]] = []

    def on_reload(self, event: ReloadEvent) -> None:
        self.events.append((event.result, event.error))


async def test_counters_go_on_whose_policy_keeps_its_name(store: Store, clock: ManualClock) -> None:
    """Up and down; another name, or another period, counts from zero."""
    heard = Heard()
    async with Limiter(settings(3), store, clock, [heard]) as limiter:
        assert [(await limiter.check(WHO)).allowed for _ in range(4)] == [True, True, True, False]
        assert await limiter.reload(settings(5))
        assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True, True, False]
        assert await limiter.reload(settings(2))
        assert not (await limiter.check(WHO)).allowed
        assert not await limiter.reload(settings(2))
        renamed = RateLimitSettings(limits=[Limit(name="b", rate="2/minute", per="token")])
        assert await limiter.reload(renamed)
        assert limiter.settings is renamed
        assert (await limiter.check(WHO)).limits[0].remaining == 1
    assert heard.events == [("applied", None), ("applied", None), ("unchanged", None), ("applied", None)]


async def test_overrides_and_switches_stay(store: Store, clock: ManualClock) -> None:
    """Also where their policy goes and comes back."""
    async with Limiter(settings(3), store, clock) as limiter:
        await limiter.overrides.set(policy="a", key={"token": "t"}, rate="1/minute")
        await limiter.fleet.shadow(policy="a")
        await limiter.reload(RateLimitSettings())
        assert (await limiter.check(WHO)).limits == ()
        await limiter.reload(settings(9))
        assert [(await limiter.check(WHO)).allowed for _ in range(3)] == [True] * 3
        await limiter.fleet.off(policy="a")
        assert (await limiter.check(WHO)).limits[0].limit == 1


@pytest.mark.parametrize("name", FIXED_FIELDS)
async def test_what_needs_a_restart_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the settings before stay; log and listeners know why."""
    others: dict[str, Any] = {
        "store": "redis://localhost",
        "store_timeout": 1.0,
        "max_keys": 7,
        "key_prefix": "other",
        "hash_key": "secret",
        "partitions": 3,
        "hashed_dimensions": ["org"],
        "statistics": True,
        "max_body": 1,
        "trusted_proxies": "10.0.0.0/8",
    }
    heard, before = Heard(), settings()
    limiter = Limiter(before, listeners=[heard])
    with (
        caplog.at_level(logging.ERROR, "ratelimit"),
        pytest.raises(ConfigurationError, match=f"^{name}: cannot change"),
    ):
        await limiter.reload(settings(9, **{name: others[name]}))
    assert limiter.settings is before
    assert heard.events == [("rejected", f"{name}: cannot change while the app runs; restart it [RL123]")]
    assert "those before stay" in caplog.text
    assert "secret" not in caplog.text
    with pytest.raises(ConfigurationError, match="settings: must be RateLimitSettings"):
        await limiter.reload({})  # type: ignore[arg-type]


def test_routes_follow_and_decorated_limits_go_on(clock: ManualClock) -> None:
    """Paths of the new settings are found; a decorated limit whose name the settings take is a mistake."""

    @limit("2/minute", per="token", name="own")
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.ratelimit.binding.policy)

    limiter = Limiter(settings(9), clock=clock)
    app = RateLimitMiddleware(Starlette(routes=[Route("/x", answer)]), limiter=limiter, identify=by_headers)
    with TestClient(app, headers={"x-token": "t"}) as client:
        run = client.portal.call  # type: ignore[union-attr]
        assert client.get("/x").text == "own"
        placed = RateLimitSettings(limits=[Limit(name="placed", rate="1/minute", per="token", paths="/nowhere/*")])
        run(limiter.reload, placed)
        assert [client.get("/x").status_code for _ in range(2)] == [200, 429]
        assert [client.get("/nowhere/1").status_code for _ in range(2)] == [404, 429]
        taken = RateLimitSettings(limits=[Limit(name="own", rate="1/minute", per="token")])
        with pytest.raises(ConfigurationError, match="'own' is already the name"):
            run(limiter.reload, taken)
        assert limiter.settings is placed
        run(limiter.reload, RateLimitSettings(exempt=["/x"]))
        assert client.get("/nowhere/1").status_code == 404


def test_all_decorators_are_checked_before_a_reload(clock: ManualClock) -> None:
    """Of two apps that have a route of the same name too: a reload that one of them cannot have is rejected."""

    @limit("3/minute", per="ip", name="deco")
    async def decorated(request: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse("")

    limiter = Limiter(settings(9), clock=clock)
    inner = RateLimitMiddleware(Starlette(routes=[Route("/a", plain)]), limiter=limiter, identify=by_headers)
    routes = [Route("/a", decorated), Mount("/sub", inner)]
    app = RateLimitMiddleware(Starlette(routes=routes), limiter=limiter, identify=by_headers)
    with TestClient(app, headers={"x-token": "t", "x-ip": "192.0.2.1"}) as client:
        assert [client.get(path).status_code for path in ("/a", "/sub/a")] == [200, 200]
        taken = RateLimitSettings(limits=[Limit(name="deco", rate="50/minute", per="ip")])
        with pytest.raises(ConfigurationError, match="'deco' is already the name"):
            client.portal.call(limiter.reload, taken)  # type: ignore[union-attr]
        assert client.get("/a").status_code == 200


async def test_statistics_outlive_a_policy(store: Store, clock: ManualClock) -> None:
    """What it has refused and used is kept under its name, and closing works."""
    both = RateLimitSettings(
        statistics=True,
        limits=[Limit(name="a", rate="1/minute", per="token"), Limit(name="b", rate="9/minute", per="token")],
    )
    limiter = Limiter(both, store, clock)
    await limiter.check(WHO)
    await limiter.check(WHO)
    await limiter.reload(both.model_copy(update={"limits": both.limits[1:]}))
    assert limiter.statistics is not None
    assert [each.policy for each in await limiter.statistics.top("used")] == ["b"]
    await limiter.aclose()


async def test_a_watched_file_is_loaded_again(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in it is logged once, and the last good settings stay."""
    path = tmp_path / "limits.toml"
    text = '[[limits]]\nname = "a"\nrate = "{}/minute"\nper = "token"\n'
    path.write_text(text.format(1))
    heard = Heard()
    async with Limiter(RateLimitSettings.from_file(path, watch=True), clock=clock, listeners=[heard]) as limiter:
        for written in (text.format(20), text.format("many"), "[[", 'key_prefix = "x"'):
            path.write_text(written)
            for _ in range(3):
                await limiter.poller.poll()
        assert str(limiter.settings.limits[0].rate) == "20/minute"
        path.write_text(text.format(300))
        for _ in range(2):
            await limiter.poller.poll()
        assert str(limiter.settings.limits[0].rate) == "300/minute"
    assert [result for result, _ in heard.events] == ["applied", "rejected", "rejected", "rejected", "applied"]
    assert "limits.0.rate" in (heard.events[1][1] or "")


async def test_prefetching_begins_with_the_settings_that_want_it(store: Store, clock: ManualClock) -> None:
    """The pool is made where there was none."""
    async with Limiter(settings(1000), store, clock) as limiter:
        assert limiter.enforcer.prefetch_pool is None
        ahead = Limit(name="a", rate="1000/minute", per="token", prefetch=100)
        await limiter.reload(RateLimitSettings(limits=[ahead]))
        assert limiter.enforcer.prefetch_pool is not None
        assert (await limiter.check(WHO)).allowed
