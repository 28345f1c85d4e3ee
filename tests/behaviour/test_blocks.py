"""The promise: a blocked caller is refused everywhere, before anything is charged, in every worker."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from ratelimit import ConfigurationError, Identity, Limit, Limiter, RateLimitMiddleware, RateLimitSettings
from ratelimit.model.block import Block
from ratelimit.stores.base import Store
from ratelimit.testing import ManualClock
from tests.support.asgi import by_headers, ok
from tests.support.instants import in_seconds

SETTINGS = RateLimitSettings(
    dimensions=["teamspace"],
    limits=[Limit(name="token", rate="5/minute", per="token", paths="/limited")],
    exempt=["/health"],
)
WHO = Identity(token="t", org="o", ip="192.0.2.7", plan="free", dimensions={"teamspace": "ts"})


@pytest.fixture
async def limiter(store: Store, clock: ManualClock) -> AsyncIterator[Limiter]:
    async with Limiter(SETTINGS, store, clock) as limiter:
        yield limiter


@pytest.mark.parametrize(
    "key",
    [
        {"token": "t"},
        {"org": "o"},
        {"plan": "free"},
        {"teamspace": "ts"},
        {"ip": "192.0.2.7"},
        {"ip": "192.0.2.0/24"},
        {"org": "o", "ip": "192.0.0.0/16"},
    ],
)
async def test_callers_are_blocked_by_any_value(limiter: Limiter, key: dict[str, str]) -> None:
    """By several where all fit; another caller is not."""
    assert (await limiter.check(WHO)).allowed
    await limiter.block(key, why="abuse")
    for decision in (await limiter.check(WHO), await limiter.peek(WHO)):
        assert (decision.allowed, decision.status, decision.is_blocked, decision.limits) == (False, 403, True, ())
    assert (await limiter.check(Identity(token="u", org="p", ip="198.51.100.1"))).allowed
    assert (await limiter.check(Identity(org="o2", ip="192.0.2.7" if "org" in key else "2001:db8::/64"))).allowed
    assert await limiter.blocks.delete(key)
    assert (await limiter.check(WHO)).allowed
    assert not await limiter.blocks.delete(key)


async def test_a_blocked_request_is_answered_without_numbers(limiter: Limiter) -> None:
    """403 with the code `blocked`, also where no limit is; nothing is charged, and exempt endpoints are served."""
    paths = ("/limited", "/free", "/health")
    app = Starlette(
        routes=[Route(path, ok) for path in paths],
        middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)],
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://x", headers={"x-token": "t"}
    ) as client:
        await limiter.block({"token": "t"}, why="the reason is for operators")
        for path in paths[:2]:
            response = await client.get(path)
            assert response.status_code == 403
            assert response.json() == {
                "type": "about:blank",
                "title": "Forbidden",
                "status": 403,
                "detail": "This caller is blocked.",
                "code": "blocked",
                "instance": response.json()["instance"],
            }
            assert {name for name in response.headers if name.startswith(("x-rate", "rate", "retry"))} == set()
            assert response.headers["cache-control"] == "no-store"
        assert (await client.get("/health")).status_code == 200
        await limiter.blocks.delete({"token": "t"})
        assert (await client.get("/limited")).headers["x-ratelimit-remaining"] == "4"


async def test_a_dimension_is_blocked_wherever_it_is_found(store: Store, clock: ManualClock) -> None:
    """In the path too, also where no limit counts by it."""
    settings = RateLimitSettings(dimensions={"tenant": "path:tenant"}, limits=[Limit(name="all", rate="99/minute")])
    limiter = Limiter(settings, store, clock)
    app = Starlette(
        routes=[Route("/t/{tenant}", ok)],
        middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)],
    )
    await limiter.block({"tenant": "evil"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        assert [(await client.get(f"/t/{tenant}")).status_code for tenant in ("evil", "good")] == [403, 200]


async def test_the_body_of_a_blocked_caller_is_not_read(store: Store, clock: ManualClock) -> None:
    """Nor is the cost of its request evaluated."""
    costs = list[int]()

    async def cost(request: Request) -> int:
        costs.append(len(await request.body()))
        return 1

    async def body() -> AsyncIterator[bytes]:
        yield b"12345"

    settings = RateLimitSettings(limits=[Limit(name="bytes", rate="9/minute", per="org", cost=cost)])
    async with Limiter(settings, store, clock) as limiter:
        await limiter.block({"org": "bad"})
        app = Starlette(
            routes=[Route("/", ok, methods=["POST"])],
            middleware=[Middleware(RateLimitMiddleware, limiter=limiter, identify=by_headers)],
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            refused = await client.post("/", content=body(), headers={"x-org": "bad"})
            assert (refused.status_code, costs) == (403, [])
            assert (await client.post("/", content=body(), headers={"x-org": "good"})).status_code == 200
            assert costs == [5]


async def test_a_blocked_caller_is_refused_by_name_too(limiter: Limiter) -> None:
    """Units, permits and messages; units that are spent already are counted, and an operator still sees what is left."""
    await limiter.block({"org": "o"})
    assert (await limiter.consume("token", WHO)).is_blocked
    assert (await limiter.consume("token", WHO, force=True)).allowed
    assert [limit.remaining for limit in await limiter.limits(WHO, endpoint="/limited")] == [4]


async def test_a_block_ends(limiter: Limiter, clock: ManualClock) -> None:
    """At its instant; an ended one is listed no longer, and removed when another one is set."""
    until = in_seconds(clock, 60)
    await limiter.block({"org": "o"}, until=until, why="pause", by="ada")
    assert await limiter.blocks.list() == [Block(key={"org": "o"}, until=until, why="pause", by="ada")]
    assert (await limiter.check(WHO)).retry_after == pytest.approx(60)
    clock.advance(seconds=61)
    assert (await limiter.check(WHO)).allowed
    assert await limiter.blocks.list() == []
    assert len(limiter.blocks) == 1
    await limiter.block({"org": "p"})
    assert len(limiter.blocks) == 1


async def test_another_worker_hears_of_it(limiter: Limiter, store: Store, clock: ManualClock) -> None:
    """With its next poll of the store; a token leaves the process as its hash alone."""
    other = Limiter(SETTINGS, store, clock)
    await other.blocks.list()
    await limiter.block({"token": "t"})
    (block,) = await other.blocks.list()
    assert list(block.key) == ["token_hash"]
    assert not (await other.check(WHO)).allowed
    assert await other.blocks.delete(block.key)
    await limiter.blocks.list()
    assert (await limiter.check(WHO)).allowed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"key": {}}, "key: say who"),
        ({"key": {"tenant": "x"}}, "key: 'tenant' is not one of ip, org, plan, teamspace, token"),
        ({"key": {"org_hash": "x"}}, "key: 'org_hash' is not one of"),
        ({"key": {"org": ""}}, "key: org: must be text and not empty"),
        ({"key": {"ip": "192.0.2"}}, "key: ip: '192.0.2' is neither an address nor a network"),
        ({"key": {"org": "o"}, "why": 5}, "why: must be text"),
        ({"key": {"org": "o"}, "until": "tomorrow"}, "until: 'tomorrow' is not an instant"),
    ],
)
async def test_a_wrong_block_fails_and_writes_nothing(limiter: Limiter, wrong: dict[str, Any], message: str) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=message):
        await limiter.block(**wrong)
    assert await limiter.blocks.list() == []


async def test_an_entry_that_cannot_be_read_blocks_nobody(
    limiter: Limiter, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and stays, and the overrides are not disturbed by blocks."""
    await store.put_entry("rl:{overrides}", "!block:org=o", b"{")
    await limiter.overrides.set(policy="token", key={"token": "t"}, rate="9/minute")
    assert (await limiter.check(WHO)).allowed
    assert {record.message for record in caplog.records} == {
        "block '!block:org=o' cannot be read and has no effect [RL508]"
    }
    assert len(await limiter.overrides.list()) == 1


async def test_a_long_token_is_blocked_and_never_printed(limiter: Limiter) -> None:
    """A signed token has thousands of characters; the store and the list have its hash."""
    token = "eyJ" + "x" * 4000
    await limiter.block({"token": token})
    assert not (await limiter.check(Identity(token=token))).allowed
    (block,) = await limiter.blocks.list()
    assert len(block.key["token_hash"]) <= 64
    assert token not in repr(block)
    await limiter.overrides.set(policy="token", key={"token": token}, rate="9/minute")
    with pytest.raises(ConfigurationError) as wrong:
        await limiter.block({"token": token + "\ud800"})
    assert "eyJ" not in str(wrong.value)


async def test_the_longer_block_of_a_network_holds(limiter: Limiter, clock: ManualClock) -> None:
    """Two IPv6 addresses of one client may be blocked for different times, in either order."""
    for first, second in (("::1", "::2"), ("::2", "::1")):
        await limiter.block({"ip": f"2001:db8{first}"}, until=in_seconds(clock, 60 if first == "::1" else 600))
        await limiter.block({"ip": f"2001:db8{second}"}, until=in_seconds(clock, 60 if second == "::1" else 600))
        clock.advance(seconds=61)
        assert not (await limiter.check(Identity(ip="2001:db8::/64"))).allowed
        clock.advance(seconds=600)
        assert (await limiter.check(Identity(ip="2001:db8::/64"))).allowed


@pytest.mark.parametrize(
    ("blocked", "known_as"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::/64"), ("::ffff:192.0.2.7", "192.0.2.7")],
)
async def test_hashed_addresses_are_blocked_one_by_one(
    store: Store, clock: ManualClock, blocked: str, known_as: str
) -> None:
    """As callers are known by them; the address itself is kept nowhere."""
    limiter = Limiter(SETTINGS.model_copy(update={"hashed_dimensions": ["ip"]}), store, clock)
    await limiter.block({"ip": blocked})
    assert not (await limiter.check(Identity(ip=known_as))).allowed
    assert (await limiter.check(Identity(ip="198.51.100.1"))).allowed
    (block,) = await limiter.blocks.list()
    assert list(block.key) == ["ip_hash"]
    for wrong in ("192.0.2.0/24", "nonsense"):
        with pytest.raises(ConfigurationError, match="key: ip: addresses are hashed here"):
            await limiter.block({"ip": wrong})
