"""Limits switched off, or on a clock that stands still, for apps as people write them.

Also tests `testing.plugin` and `testing.clock`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ratelimit import ConfigurationError, Identity, Limit, Limiter, Quota, RateLimitMiddleware, RateLimitSettings
from ratelimit.enforcement.enforcer import Enforcer
from ratelimit.testing import (
    ManualClock,
    assert_admitted,
    assert_limited,
    assert_quota_exceeded,
    assert_unlimited,
    disable_limits,
    freeze_limits,
)

SETTINGS = RateLimitSettings(
    store="redis://127.0.0.1:1",  # Nothing answers there.
    limits=[Limit(name="ip", rate="2/minute", per="ip")],
    quotas=[Quota(name="month", limit=3, period="month", per="ip")],
)

app = FastAPI()
app.add_middleware(RateLimitMiddleware, settings=SETTINGS)


@app.get("/")
async def index() -> str:
    return "ok"


def test_off_admits_everything() -> None:
    """Also quotas, without looking for a store; and on again afterwards."""
    with disable_limits(), TestClient(app) as client:
        for _ in range(9):
            assert_unlimited(client.get("/"))
    with freeze_limits(app), TestClient(app) as client:
        for _ in range(2):
            client.get("/")
        assert_limited(client.get("/"))


@pytest.mark.usefixtures("disable_limits")
async def test_off_is_a_fixture_too() -> None:
    """For the limiter itself as well."""
    async with Limiter(SETTINGS) as limiter:
        for _ in range(9):
            assert_admitted(await limiter.check(Identity(ip="1.2.3.4")))
            assert_admitted(await limiter.consume("month", Identity(ip="1.2.3.4"), 9))
        assert_admitted(await limiter.peek(Identity(ip="1.2.3.4")))
        assert (await limiter.release("month", Identity(ip="1.2.3.4"), 5)).allowed
        assert await limiter.usage(Identity(ip="1.2.3.4")) == ()


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_counts_afresh(turn: int, freeze_limits: Callable[..., ManualClock]) -> None:
    """A module's app has fresh counters each time, and the clock says when there is room again."""
    clock = freeze_limits(app)
    with TestClient(app) as client:
        for left in (1, 0):
            assert_admitted(client.get("/"), remaining=left, scope="ip")
        assert_limited(client.get("/"), policy="ip", retry_after=61)
        clock.advance(seconds=61)
        assert_admitted(client.get("/"), remaining=1)
        assert_quota_exceeded(client.get("/nowhere"), policy="month")


async def test_limiters_are_made_of_policies(
    make_limiter: Callable[..., Limiter], ratelimit_clock: ManualClock
) -> None:
    """On the same clock."""
    limiter: Any = make_limiter(
        Limit(name="one", rate="1/second", per="org"), Quota(name="all", limit=2, period="day", per="org")
    )
    acme = Identity(org="acme")
    assert_admitted(await limiter.check(acme), remaining=0)
    assert_limited(await limiter.check(acme), policy="one", retry_after=1.001)
    ratelimit_clock.advance(seconds=1.001)
    assert_admitted(await limiter.check(acme))
    assert [limiter.settings.limits[0].name, limiter.settings.quotas[0].name] == ["one", "all"]
    assert make_limiter(SETTINGS).settings is SETTINGS
    for wrong in (("limits",), (SETTINGS, SETTINGS)):
        with pytest.raises(ConfigurationError, match="takes settings, or policies"):
            make_limiter(*wrong)


def test_a_limiter_with_its_own_clock_keeps_it(freeze_limits: Callable[..., ManualClock]) -> None:
    """Also where the clock is given by its name."""
    own = ManualClock(0)
    frozen = freeze_limits()
    assert Limiter(SETTINGS, clock=own).clock is own
    assert Limiter(SETTINGS).clock is frozen


@pytest.mark.parametrize("made", [5, "limited"])
def test_what_cannot_be_frozen_says_so(made: Any) -> None:
    """No app, or one whose limiter was made before."""
    if made == "limited":
        made = FastAPI()
        made.add_middleware(RateLimitMiddleware, limiter=Limiter(SETTINGS))
    with pytest.raises(ConfigurationError, match="freeze_limits"), freeze_limits(made):
        pass


def test_limits_are_on_again_after_a_failure() -> None:
    """Whatever happens meanwhile."""
    before = Enforcer.decide, Limiter.usage, Limiter.__init__
    with pytest.raises(ZeroDivisionError), disable_limits(), freeze_limits(app):
        raise ZeroDivisionError
    assert (Enforcer.decide, Limiter.usage, Limiter.__init__) == before
