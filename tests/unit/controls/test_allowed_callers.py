"""Allowed callers: neither charged nor refused, and a block has no effect on them."""

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from ratelimit import Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, ok
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings(limits=[Limit(name="token", rate="1/minute", per="token")])
WHO = Identity(token="t", org="o", ip="192.0.2.7")


async def test_allowed_callers_are_neither_charged_nor_refused(store: Store, clock: ManualClock) -> None:
    """By any value, until the entry ends; then their counters are as they were."""
    until = in_seconds(clock, 10)
    async with Limiter(SETTINGS, store, clock) as limiter:
        await limiter.allowed.set({"ip": "192.0.2.0/24"}, until=until, why="load test")
        await limiter.block({"org": "o"})
        for decision in [await limiter.check(WHO) for _ in range(3)]:
            assert (decision.allowed, decision.limits) == (True, ())
        assert (await limiter.check(WHO, at_most=True, cost=7)).granted == 7
        assert (await limiter.consume("token", WHO)).allowed
        (entry,) = await limiter.allowed.list()
        assert (dict(entry.key), entry.until, entry.why) == ({"ip": "192.0.2.0/24"}, until, "load test")
        clock.advance(seconds=10)
        assert (await limiter.check(WHO)).is_blocked
        await limiter.blocks.delete({"org": "o"})
        assert [(await limiter.check(WHO)).allowed for _ in range(2)] == [True, False]


def test_a_token_is_allowed_by_its_hash(clock: ManualClock) -> None:
    """Over HTTP: its answers carry no rate-limit headers."""
    limiter = Limiter(SETTINGS, clock=clock)
    app = RateLimitMiddleware(Starlette(routes=[Route("/", ok)]), limiter=limiter, identify=by_headers)
    with TestClient(app) as client:
        hashed = limiter.resolver.named.hashed("t")
        client.portal.call(limiter.allowed.set, {"token_hash": hashed})  # type: ignore[union-attr]
        for _ in range(3):
            answer = client.get("/", headers={"x-token": "t"})
            assert (answer.status_code, "x-ratelimit-limit" in answer.headers) == (200, False)
        assert [client.get("/", headers={"x-token": "u"}).status_code for _ in range(2)] == [200, 429]
